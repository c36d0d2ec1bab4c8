"""Kernels of the optimizer step of all slots, in Triton: norms of gradients, weights and moments, averages.

Parameters, gradients, moments and averages are slabs, [S, numbers], of S slots. `table` holds, for each step and slot,
the coefficients that change and how far the average moves: [steps, S, 4]; `counter` is the number of the step.
"""

import triton
import triton.language as tl


@triton.jit
def squares(grads, sums, NUMBERS: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the sums of squares of parts of each slot's gradient: [S, PARTS]."""
    slot, part = tl.program_id(0), tl.program_id(1)
    line = grads + slot.to(tl.int64) * NUMBERS
    total = tl.zeros([BLOCK], grads.dtype.element_ty)
    for start in range(0, NUMBERS, PARTS * BLOCK):
        number = start + part * BLOCK + tl.arange(0, BLOCK)
        g = tl.load(line + number, number < NUMBERS, 0.0)
        total += g * g
    tl.store(sums + slot * PARTS + part, tl.sum(total, 0))


@triton.jit
def update(
    params,
    grads,
    first,  # the moments
    second,
    averages,
    constant,  # [S, 8]
    table,
    counter,
    limits,  # the largest norm of a slot's gradient: [S]
    sums,  # what `squares` wrote
    slots,
    numbers,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    CLIPS: tl.constexpr,
    AVERAGES: tl.constexpr,
):
    """Take a step of some numbers of a slot: the formula of `VectorizedStep`, after clipping, before averaging."""
    slot = tl.program_id(0)
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = number < numbers
    at = slot.to(tl.int64) * numbers + number
    same, changing = constant + slot * 8, table + (tl.load(counter) * slots + slot) * 4

    p, g = tl.load(params + at, inside, 0.0), tl.load(grads + at, inside, 0.0)
    if CLIPS:
        norm = tl.sqrt(tl.sum(tl.load(sums + slot * PARTS + tl.arange(0, PARTS)), 0))
        factor = tl.load(limits + slot) / (norm + 1e-6)
        g *= tl.where(factor > 1.0, 1.0, factor)  # NaN stays NaN
    g += p * tl.load(same)
    p *= tl.load(changing)
    m = tl.load(first + at, inside, 0.0) * tl.load(same + 1) + g * tl.load(same + 2)
    v = tl.load(second + at, inside, 0.0) * tl.load(same + 3) + g * tl.load(same + 4) * g
    direction = m * tl.load(same + 6) + g * tl.load(same + 5)
    root, size = tl.load(changing + 1), tl.load(changing + 2)
    p -= direction * size / (tl.sqrt(v) * root + tl.load(same + 7))
    tl.store(params + at, p, inside)
    tl.store(first + at, m, inside)
    tl.store(second + at, v, inside)
    if AVERAGES:
        a = tl.load(averages + at, inside, 0.0)
        tl.store(averages + at, _moved(a, p, tl.load(changing + 3)), inside)


@triton.jit
def average(averages, values, table, counter, slots, width, BLOCK: tl.constexpr):
    """Move averages of tensors [any, S, W] towards their values: one program for each row of W."""
    line, column = tl.program_id(0), tl.arange(0, BLOCK)
    weight = tl.load(table + (tl.load(counter) * slots + line % slots) * 4 + 3)
    at, inside = line * width + column, column < width
    moved = _moved(tl.load(averages + at, inside, 0.0), tl.load(values + at, inside, 0.0), weight)
    tl.store(averages + at, moved, inside)


@triton.jit
def _moved(start, end, weight):
    """Return torch's `lerp`, which reaches the end exactly."""
    return tl.where(weight < 0.5, start + weight * (end - start), end - (end - start) * (1.0 - weight))
