"""Kernels of the layers of stacked MLPs, in Triton: all that stands between two matrix products.

A program computes some units of one slot for all rows of the batch, so that batch statistics are sums within it. What
is of a slot (activation, norm, dropout, ...) is read from memory. Constants are only what is the same for all members
that a network may ever have.

Shapes, all contiguous unless noted: S slots, N rows of a batch, W the padded width. Vectors of parameters are rows of a
slab: the numbers of two slots are `stride` apart. `counter` holds the number of the step, by which `drawn` is indexed.
"""

import triton
import triton.language as tl

from hpo.training.packed.compute.layers import CODES
from hpo.training.packed.compute.norms import EPS, MOMENTUM

_LEAKY, _GELU, _TANH, _SIGMOID = (tl.constexpr(CODES[name]) for name in ("leaky_relu", "gelu", "tanh", "sigmoid"))
_SLOPE = tl.constexpr(0.01)
_EPS, _MOMENTUM = tl.constexpr(EPS), tl.constexpr(MOMENTUM)
_ROOT_HALF = tl.constexpr(0.5**0.5)
_NORMAL = tl.constexpr(0.3989422804014327)
"""Density of the normal distribution at 0."""


@triton.jit
def _activated(u, code):
    """Return the activation of u. NaN stays NaN."""
    h = tl.where(u < 0, 0.0, u)
    if code == _LEAKY:
        h = tl.where(u < 0, u * _SLOPE, u)
    if code == _GELU:
        h = u * 0.5 * (1.0 + tl.erf(u * _ROOT_HALF))
    if code == _TANH:
        # Near 0 its error is one rounding of 1, not of the result, which a training step cannot tell.
        shrunk = tl.exp(-2.0 * tl.abs(u))
        size = (1.0 - shrunk) / (1.0 + shrunk)
        h = tl.where(u < 0, -size, size)
    if code == _SIGMOID:
        h = 1.0 / (1.0 + tl.exp(-u))
    return h


@triton.jit
def _through_activation(grad, u, code):
    """Return the gradient of an activation's input u from that of its output."""
    g = tl.where(u <= 0, 0.0, grad)
    if code == _LEAKY:
        g = tl.where(u > 0, grad, grad * _SLOPE)
    if code == _GELU:
        below = 0.5 * (1.0 + tl.erf(u * _ROOT_HALF))
        g = grad * (below + u * (_NORMAL * tl.exp(-0.5 * u * u)))
    if code == _TANH:
        h = _activated(u, code)
        g = grad * (1.0 - h * h)
    if code == _SIGMOID:
        h = _activated(u, code)
        g = grad * h * (1.0 - h)
    return g


@triton.jit
def layer_forward(
    linear,  # [N, S, W], without the bias
    bias,
    scale,
    shift,
    stride,
    running,  # mean and variance: [2, S, W]
    saved,  # mean and inverse standard deviation of the batch, for `layer_backward`: [2, S, W]
    has,  # whether a slot has batch norm: [S]
    activations,  # [S]
    is_last,  # 1 where this is a member's last layer, else 0: [S]
    drawn,  # random bytes: [N, S, W], those of two steps `drawn_stride` apart
    drawn_stride,
    thresholds,  # of the bytes: [S]
    keeping,  # factor of units that are kept: [S]
    counter,
    units,  # 1 for a member's units, 0 for padding: [S, W]
    output,  # [N, S, W]
    last,  # output of the last layers: [N, S, W]
    slots,
    width,
    N: tl.constexpr,
    ROWS: tl.constexpr,  # power of two that is no less than N
    UNITS: tl.constexpr,
    NORMED: tl.constexpr,
    DROPS: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Compute a layer's output from its linear map, and update the running statistics."""
    slot = tl.program_id(0)
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    row = tl.arange(0, ROWS)
    inside = unit < width
    place = slot * width + unit
    at = row[:, None] * (slots * width) + place[None, :]
    valid = (row < N)[:, None] & inside[None, :]
    code = tl.load(activations + slot)

    u = tl.load(linear + at, valid, 0.0) + tl.load(bias + slot * stride + unit, inside, 0.0)[None, :]
    if NORMED:
        mean = tl.sum(tl.where(valid, u, 0.0), 0) / N
        centred = tl.where(valid, u - mean[None, :], 0.0)
        variance = tl.sum(centred * centred, 0) / N
        inverse = 1.0 / tl.sqrt(variance + _EPS)
        tl.store(saved + place, mean, inside)
        tl.store(saved + slots * width + place, inverse, inside)
        mean_at, variance_at = running + place, running + slots * width + place
        old_mean, old_variance = tl.load(mean_at, inside, 0.0), tl.load(variance_at, inside, 0.0)
        tl.store(mean_at, old_mean * (1 - _MOMENTUM) + mean * _MOMENTUM, inside)
        unbiased = variance * (N / (N - 1))
        tl.store(variance_at, old_variance * (1 - _MOMENTUM) + unbiased * _MOMENTUM, inside)
        gain = tl.load(scale + slot * stride + unit, inside, 0.0)[None, :]
        moved = tl.load(shift + slot * stride + unit, inside, 0.0)[None, :]
        u = tl.where(tl.load(has + slot) > 0, centred * inverse[None, :] * gain + moved, u)

    h = _activated(u, code)
    if MASKED:
        h *= tl.load(units + place, inside, 0.0)[None, :]
    if DROPS:
        bytes_ = tl.load(drawn + tl.load(counter) * drawn_stride + at, valid, 0)
        h *= tl.where(bytes_ >= tl.load(thresholds + slot), tl.load(keeping + slot), 0.0)
    tl.store(output + at, h, valid)
    if tl.load(is_last + slot) > 0:
        tl.store(last + at, h, valid)


@triton.jit
def layer_backward(
    linear,  # as in `layer_forward`, up to the counter
    bias,
    scale,
    shift,
    stride,
    saved,
    has,
    activations,
    is_last,
    drawn,
    drawn_stride,
    thresholds,
    keeping,
    counter,
    last_grad,  # gradient of the output of the last layers: [N, S, W]
    grad,  # gradient of the layer's output by the layer above, overwritten by that of the linear map: [N, S, W]
    bias_grad,
    scale_grad,
    shift_grad,
    slots,
    width,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    NORMED: tl.constexpr,
    DROPS: tl.constexpr,
    TOP: tl.constexpr,  # whether there is no layer above
):
    """Compute the gradients of a layer's linear map, bias, scale and shift from that of its output."""
    slot = tl.program_id(0)
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    row = tl.arange(0, ROWS)
    inside = unit < width
    place = slot * width + unit
    at = row[:, None] * (slots * width) + place[None, :]
    valid = (row < N)[:, None] & inside[None, :]
    vector = slot * stride + unit
    code = tl.load(activations + slot)

    ends = tl.load(is_last + slot).to(tl.int32)
    g = tl.load(last_grad + at, valid & (ends > 0), 0.0)
    if not TOP:
        g += tl.load(grad + at, valid & (ends == 0), 0.0)
    if DROPS:
        bytes_ = tl.load(drawn + tl.load(counter) * drawn_stride + at, valid, 0)
        g *= tl.where(bytes_ >= tl.load(thresholds + slot), tl.load(keeping + slot), 0.0)

    u = tl.load(linear + at, valid, 0.0) + tl.load(bias + vector, inside, 0.0)[None, :]
    if NORMED:
        normed = tl.load(has + slot).to(tl.int32) > 0
        inverse = tl.load(saved + slots * width + place, inside, 0.0)[None, :]
        standard = (u - tl.load(saved + place, inside, 0.0)[None, :]) * inverse
        gain = tl.load(scale + vector, inside, 0.0)[None, :]
        moved = tl.load(shift + vector, inside, 0.0)[None, :]
        u = tl.where(normed, standard * gain + moved, u)
    g = tl.where(valid, _through_activation(g, u, code), 0.0)
    if NORMED:
        along, total = tl.sum(g * standard, 0), tl.sum(g, 0)
        tl.store(scale_grad + vector, tl.where(normed, along, 0.0), inside)
        tl.store(shift_grad + vector, tl.where(normed, total, 0.0), inside)
        of_input = (g - total[None, :] / N - standard * (along[None, :] / N)) * (gain * inverse)
        g = tl.where(valid & normed, of_input, g)
    tl.store(grad + at, g, valid)
    tl.store(bias_grad + vector, tl.sum(g, 0), inside)
