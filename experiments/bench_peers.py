"""The peers that experiments/bench.lua measures itself against: GHM as mmdetection computes it,
plain losses and numpy, timed on request on the bench's own arrays.

Each line on stdin is a request in JSON, each line on stdout its answer:
  {"do": "hello"}                                      -> {"torch": "2.x", "numpy": ..., ...}
  {"do": "load", "arrays": {"name": {"path", "shape"}}}                     float32, C order
  {"do": "threads", "threads": 2}   {"do": "drop"}
  {"do": "time", "maker": "eager", "what": "ghmc", "bins": 10, "grad": false, "calls": 3}
                                                       -> {"seconds": ..., "value": the loss}
A failure is answered with {"error": text}.
"""
import json
import os
import sys
import time

import numpy as np

try:
    import torch
    from torch.nn import functional as F
except ImportError:
    torch = None

arrays, tensors = {}, {}
MU = 0.02  # of GHM-R, mmdetection's default


# -- the losses: (pred, target, weight, bins) -> scalar ------------------------------------------


def edges_of(bins, last):
    edges = [i / bins for i in range(bins + 1)]
    edges[-1] += last
    return edges


def harmonise(g, valid, tot, bins, last):
    """The weight of each sample, region by region, as mmdetection's ghm_loss.py does it."""
    edges = edges_of(bins, last)
    weights = torch.zeros_like(g)
    n = 0
    for low, high in zip(edges, edges[1:]):
        inside = (g >= low) & (g < high) & valid
        count = inside.sum().item()
        if count > 0:
            weights[inside] = tot / count
            n += 1
    return weights / n if n > 0 else weights


def ghmc(pred, target, weight, bins):
    g = torch.abs(pred.sigmoid().detach() - target)
    valid = weight > 0
    tot = max(valid.float().sum().item(), 1.0)
    weights = harmonise(g, valid, tot, bins, 1e-6)
    return F.binary_cross_entropy_with_logits(pred, target, weights, reduction="sum") / tot


def ghmr(pred, target, weight, bins):
    diff = pred - target
    root = torch.sqrt(diff * diff + MU * MU)
    g = torch.abs(diff / root).detach()
    tot = max(weight.sum().item(), 1.0)
    weights = harmonise(g, weight > 0, tot, bins, 1e3)
    return ((root - MU) * weights).sum() / tot


def ghmc_without_sync(pred, target, weight, bins):
    """ghmc as torch.compile can fuse it: no number leaves the graph."""
    g = torch.abs(pred.sigmoid().detach() - target)
    valid = weight > 0
    tot = valid.sum().clamp(min=1)
    edges = edges_of(bins, 1e-6)
    weights = torch.zeros_like(g)
    n = torch.zeros((), dtype=torch.int64, device=pred.device)
    for low, high in zip(edges, edges[1:]):
        inside = (g >= low) & (g < high) & valid
        count = inside.sum()
        weights = torch.where(inside, tot / count.clamp(min=1), weights)
        n = n + (count > 0)
    weights = weights / n.clamp(min=1)
    return F.binary_cross_entropy_with_logits(pred, target, weights, reduction="sum") / tot


def bce(pred, target, _weight, _bins):
    return F.binary_cross_entropy_with_logits(pred, target)


def focal(pred, target, _weight, _bins):
    """mmdetection's py_sigmoid_focal_loss, alpha 0.25, gamma 2."""
    p = pred.sigmoid()
    pt = (1 - p) * target + p * (1 - target)
    balance = (0.25 * target + 0.75 * (1 - target)) * pt.pow(2)
    return (F.binary_cross_entropy_with_logits(pred, target, reduction="none") * balance).mean()


def ghmc_numpy(pred, target, weight, bins):
    s = np.where(target > 0, -pred, pred)[weight > 0]
    small = np.exp(-np.abs(s))
    loss = np.maximum(s, 0) + np.log1p(small)
    g = np.where(s >= 0, 1, small) / (1 + small)
    region = np.minimum((g * bins).astype(np.int32), bins - 1)
    counts = np.bincount(region, minlength=bins)
    sums = np.bincount(region, weights=loss, minlength=bins)
    used = counts > 0
    return (sums[used] / counts[used]).sum() / used.sum()


def sweep(pred, target, weight, last):
    """GHM-C for each number of regions from 2 to `last`; the value is the last loss."""
    for bins in range(2, last + 1):
        loss = ghmc(pred, target, weight, bins)
    return loss


LOSSES = {"ghmc": ghmc, "ghmr": ghmr, "bce": bce, "focal": focal, "sweep": sweep}
compiled = {}


def function_of(request):
    maker, what, bins = request["maker"], request["what"], request.get("bins", 0)
    if maker == "numpy":
        names = ("logits_pred", "logits_target", "logits_weight")
        inputs = [arrays[name] for name in names]
        return lambda: ghmc_numpy(*inputs, bins)
    kind = "boxes" if what == "ghmr" else "logits"
    pred, target, weight = (tensors[f"{kind}_{part}"] for part in ("pred", "target", "weight"))
    loss = LOSSES[what]
    if maker == "compiled":
        key = (bins, torch.get_num_threads(), pred.shape)
        if key not in compiled:
            torch._dynamo.reset()
            compiled[key] = torch.compile(ghmc_without_sync, dynamic=False)
        loss = compiled[key]
    if not request.get("grad"):
        def forward():
            with torch.no_grad():
                return loss(pred, target, weight, bins)
        return forward
    leaf = pred.detach().requires_grad_()

    def both():
        leaf.grad = None
        value = loss(leaf, target, weight, bins)
        value.backward()
        return value.detach()
    return both


def answer(request):
    action = request["do"]
    if action == "hello":
        return {"torch": torch.__version__ if torch else False, "numpy": np.__version__,
                "cuda": bool(torch and torch.cuda.is_available())}
    if action == "drop":
        arrays.clear()
        tensors.clear()
        return {}
    if action == "threads":
        if torch:
            torch.set_num_threads(request["threads"])
        return {}
    if action == "load":
        for name, a in request["arrays"].items():
            arrays[name] = np.fromfile(a["path"], np.float32).reshape(a["shape"])
            if torch:
                tensors[name] = torch.from_numpy(arrays[name]).to(request.get("device") or "cpu")
        return {}
    if action == "time":
        run = function_of(request)
        finish = torch.cuda.synchronize if torch and torch.cuda.is_available() else lambda: None
        finish()
        begun = time.perf_counter()
        for _ in range(request["calls"]):
            value = run()
        finish()
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "value": float(value)}
    raise ValueError(f"unknown request {action!r}")


def main():
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not reach the bench
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as problem:  # told to the bench, which reports it
            reply = {"error": f"{type(problem).__name__}: {problem}".split("\n")[0]}
        replies.write(json.dumps(reply) + "\n")


main()
