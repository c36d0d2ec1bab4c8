"""Kernels of the batches of stacked MLPs, in Triton: their rows, and their loss.

Shapes, all contiguous unless noted: S slots, N rows of a batch, F features, C classes. Vectors of parameters are rows
of a slab: the numbers of two slots are `stride` apart. `counter` holds the number of the step, by which `batches`, rows
and labels, and `stored`, logits, are indexed.
"""

import triton
import triton.language as tl


@triton.jit
def gather(data, batches, counter, x, pairs, features, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Write the rows of the batches of all slots to x, [pairs, F]; there are S N = `pairs` of slot and row."""
    pair = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.load(batches + tl.load(counter) * 2 * pairs + pair, pair < pairs, 0)
    inside = (pair < pairs)[:, None] & (column < features)[None, :]
    values = tl.load(data + row[:, None] * features + column[None, :], inside, 0.0)
    tl.store(x + pair[:, None] * features + column[None, :], values, inside)


@triton.jit
def loss(
    logits,  # [S, N, C], without the bias
    bias,
    stride,
    batches,  # rows and labels: [steps, 2, S, N]
    counter,
    smoothing,  # [S]
    weights,  # of the classes: [S, C]
    grad,  # [S, N, C]
    bias_grad,
    stored,  # the logits of all steps: [steps, S, N, C]
    slots,
    N: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,  # power of two that is no less than C
    WEIGHTED: tl.constexpr,
):
    """Store the logits of a slot's batch; compute the gradients of the logits and of the output layer's bias."""
    slot, step = tl.program_id(0), tl.load(counter)
    number = tl.arange(0, CLASSES)
    real = number < C
    added = tl.load(bias + slot * stride + number, real, 0.0)[None, :]
    smooth = tl.load(smoothing + slot)
    spread = smooth / C
    labels = batches + ((2 * step + 1) * slots + slot) * N
    kind = logits.dtype.element_ty
    if WEIGHTED:
        of_classes = tl.load(weights + slot * C + number, real, 0.0)
        totals = tl.zeros([ROWS], kind)
        for start in range(0, N, ROWS):
            row = start + tl.arange(0, ROWS)
            label = tl.load(labels + row, row < N, 0)
            totals += tl.load(weights + slot * C + label, row < N, 0.0)
        count, all_classes = tl.sum(totals, 0), tl.sum(of_classes, 0)

    bias_sums = tl.zeros([CLASSES], kind)
    for start in range(0, N, ROWS):
        row = start + tl.arange(0, ROWS)
        valid = (row < N)[:, None] & real[None, :]
        at = row[:, None] * C + number[None, :]
        z = tl.load(logits + slot * (N * C) + at, valid, 0.0) + added
        tl.store(stored + (step * slots + slot) * (N * C) + at, z, valid)
        z = tl.where(real[None, :], z, float("-inf"))
        powers = tl.exp(z - tl.max(z, 1)[:, None])
        share = powers / tl.sum(powers, 1)[:, None]
        label = tl.load(labels + row, row < N, 0)
        hit = tl.where(label[:, None] == number[None, :], 1.0 - smooth, 0.0)
        if WEIGHTED:
            of_row = tl.load(weights + slot * C + label, row < N, 0.0)[:, None]
            g = share * ((1.0 - smooth) * of_row + spread * all_classes)
            g = (g - spread * of_classes[None, :] - hit * of_row) / count
        else:
            g = (share - spread - hit) / N
        g = tl.where(valid, g, 0.0)
        tl.store(grad + slot * (N * C) + at, g, valid)
        bias_sums += tl.sum(g, 0)
    tl.store(bias_grad + slot * stride + number, bias_sums, real)
