"""Trains with experiments/dump_logits.py as its users do, for spec/test_dump_hook.lua:
make_hooked_dumps.py FOLDER.  FOLDER/said.json holds what training itself saw.
"""
import copy
import io
import json
import os
import sys
import threading
import time
import warnings

try:
    import torch
    from torch import nn
except ImportError:
    sys.exit(3)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../experiments"))
from dump_logits import LogitDump

out, said = sys.argv[1], {}
torch.set_num_threads(1)
torch.manual_seed(5)
warnings.simplefilter("error")


def folder(name):
    return os.path.join(out, name)


def plain():
    """BCEWithLogitsLoss on a model in training; each second step; a validation in between."""
    model, loss = nn.Linear(6, 4), nn.BCEWithLogitsLoss()
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.1), {}
    with LogitDump(folder("plain"), every=2) as dump:
        dump.watch(loss)
        for step in range(5):
            x, y = torch.randn(50, 6), (torch.rand(50, 4) < 0.2).float()
            logits = model(x)
            value = loss(logits, y)
            with torch.no_grad():
                loss(model(x), 1 - y)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            logits.data.fill_(7)  # what was recorded is a copy
            dump.step()
            losses[step] = value.item()
    said["plain"] = [losses[step] for step in (0, 2, 4)]


class HeadLoss(nn.Module):
    """The convention of mmdetection's losses."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        self.seen.append({"samples": pred.numel(), "avg_factor": avg_factor})
        return (pred * 0).sum()


def pyramid(name, **options):
    """A RetinaNet's head: both losses called for each level."""
    cls, box = HeadLoss(), HeadLoss()
    with LogitDump(folder(name), **options) as dump:
        assert dump.watch(cls) is cls
        dump.watch(box, boxes=True)
        for step in range(2):
            for rows in (40, 10, 3):
                pred = torch.randn(rows, 5, requires_grad=True)
                boxes = torch.randn(rows, 4, requires_grad=True)
                mask = torch.rand(rows) < 0.5
                labels = torch.where(torch.rand(rows) < 0.2, torch.randint(0, 5, (rows,)), 5)
                cls(pred, labels, torch.ones(rows), avg_factor=7)
                box(boxes, target=torch.randn(rows, 4), weight=mask[:, None].expand(rows, 4).float(),
                    avg_factor=7)
            dump.step()
    said[name] = [call["samples"] for call in cls.seen]


def narrow():
    """float16 where it holds the values; bfloat16; numpy arrays; what ghm would not look for."""
    with LogitDump(folder("narrow"), half=True, start=41) as dump:
        dump.record(logits=torch.full((3, 2), -1.25), target=torch.tensor([[0., 1], [1, 0], [0, 0]]))
        dump.step()
        dump.record(logits=torch.tensor([[1e5, float("inf")]]), target=torch.zeros(1, 2))
        dump.step()
        dump.record(logits=torch.ones(1, 2, dtype=torch.bfloat16), target=torch.zeros(1, 2).numpy(),
                    label_weights=None, level="P3")
        dump.step()


def weighted():
    """The weight that BCEWithLogitsLoss itself has."""
    with LogitDump(folder("weighted")) as dump:
        loss = dump.watch(nn.BCEWithLogitsLoss(weight=torch.tensor([1.0, 0])))
        loss(torch.ones(3, 2, requires_grad=True), torch.zeros(3, 2))
        dump.step()


def record_one(dump):
    dump.record(logits=torch.zeros(2, 2), target=torch.zeros(2, 2))
    dump.step()


def caught(call):
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
        return [str(one.message) for one in told]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def full():
    """A writer that is held up: steps beyond the room are left out and told, or waited for."""
    for wait in (False, True):
        dump = LogitDump(folder(f"full_{wait}"), room=2, wait=wait)
        held, gate, write = threading.Event(), threading.Event(), dump._write
        dump._write = lambda *step: held.set() or gate.wait() and write(*step)
        for step in range(6):
            record_one(dump)
            if step == 0:
                held.wait()  # the writer has it, so that two more fit whenever threads take turns
                if wait:
                    threading.Timer(0.1, gate.set).start()
        gate.set()
        said[f"full_{wait}"] = caught(dump.close)


def broken():
    """A disk that fails in the middle of a file: no half file, training goes on, close() tells."""
    dump = LogitDump(folder("broken"))

    def fail(file, **arrays):
        file.write(b"half a file")
        raise OSError("no space left")

    import numpy as np
    good, np.savez = np.savez, fail
    record_one(dump)
    while dump.error is None:
        time.sleep(0.01)
    said["broken_training"] = caught(lambda: [record_one(dump), record_one(dump)])
    np.savez = good
    said["broken_close"] = caught(dump.close)
    said["broken_files"] = os.listdir(folder("broken"))


def forked():
    """A worker forked while the writer is busy and nothing more fits has no part in the dump."""
    dump = LogitDump(folder("forked"), room=1, wait=True)
    held, gate, write = threading.Event(), threading.Event(), dump._write
    dump._write = lambda *step: held.set() or gate.wait() and write(*step)
    record_one(dump)
    held.wait()
    record_one(dump)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads
        worker = os.fork()
    if worker == 0:
        record_one(dump)
        dump.close()
        os._exit(7)
    ended, until = (0, 0), time.monotonic() + 20
    while ended[0] == 0 and time.monotonic() < until:
        ended = os.waitpid(worker, os.WNOHANG)
        time.sleep(0.01)
    if ended[0] == 0:
        os.kill(worker, 9)
        os.waitpid(worker, 0)
    gate.set()
    dump.close()
    said["forked"] = os.waitstatus_to_exitcode(ended[1]) if ended[0] else "it hangs"


def trained(name, call):
    """Two steps with a watched loss, whose value is call(model, x, loss, y): what training saw."""
    torch.manual_seed(6)
    model, loss = nn.Linear(6, 4), nn.BCEWithLogitsLoss()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        values = []
        with LogitDump(folder(name)) as dump:
            dump.watch(loss)
            for _ in range(2):
                x, y = torch.randn(50, 6, requires_grad=True), (torch.rand(50, 4) < 0.2).float()
                value = call(model, x, loss, y)
                value.backward()
                dump.step()
                values.append(value.item())
    said[name] = {"values": values, "gradient": model.weight.grad.abs().sum().item(),
                  "warned": [str(one.message) for one in told if "dump" in one.filename
                             or "getpid" in str(one.message)]}


def in_other_ways():
    """Each must give the dump, the loss and the gradient of a plain call."""
    from torch.utils.checkpoint import checkpoint

    def whole(model, x, loss, y):
        return loss(model(x), y)

    def checked(model, x, loss, y, reentrant):
        return checkpoint(lambda x: whole(model, x, loss, y), x, use_reentrant=reentrant)

    def inner(model, x, loss, y):
        return loss(checkpoint(model, x, use_reentrant=False), y)

    def validated(model, x, loss, y):
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                loss(model(x), y)
        copied = copy.deepcopy(loss)
        copied(model(x), y)
        torch.save(loss, kept := io.BytesIO())
        kept.seek(0)
        torch.load(kept, weights_only=False)(model(x), y)
        return whole(model, x, loss, y)

    def halves(model, x, loss, y):
        return sum(checked(model, x[k], loss, y[k], True) for k in (slice(9), slice(9, 50)))

    trained("halves", halves)
    trained("ways_whole", whole)
    trained("ways_reentrant", lambda *args: checked(*args, True))
    trained("ways_checkpoint", lambda *args: checked(*args, False))
    trained("ways_inner", inner)
    trained("ways_validated", validated)
    trained("ways_transposed", lambda model, x, loss, y: loss(model(x).t().contiguous().t(), y))
    meta = nn.Linear(6, 4, device="meta")

    def on_meta(model, x, loss, y):
        loss(meta(x.to("meta")), y.to("meta"))
        return whole(model, x, loss, y)

    trained("ways_meta", on_meta)
    try:
        compiled = torch.compile(whole, backend="eager")
    except RuntimeError:  # each torch knows Pythons up to some version
        said["ways_compiled"] = None
    else:
        trained("ways_compiled", compiled)
    for dtype in (torch.bfloat16, torch.float16):
        def cast(*args):
            with torch.autocast("cpu", dtype):
                return whole(*args)
        trained(f"cast_{str(dtype)[6:]}", cast)
    with LogitDump(folder("sparse")) as dump:
        dump.record(logits=torch.ones(2, 2), target=torch.eye(2).to_sparse())
        dump.step()


def misused():
    with LogitDump(folder("once")) as dump:
        record_one(dump)
    said["again"] = caught(lambda: LogitDump(folder("once")))
    open(folder("once/.step_000001.npz.7.part"), "w").close()  # of a process that was killed
    with LogitDump(folder("once"), append=True) as dump:
        record_one(dump)
    said["pos_weight"] = caught(
        lambda: dump.watch(nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]))))
    said["level"] = caught(lambda: LogitDump(folder("x"), levels=["stem"]))
    with LogitDump(folder("other_names")) as dump:
        loss = dump.watch(HeadLoss())
        said["other_names"] = caught(lambda: loss(torch.ones(2, 2), (torch.ones(2), torch.ones(2))))
        dump.record(logits=torch.ones(2, 2), target=torch.ones(2, 2))
        dump.step()
    import numpy as np
    fixed = np.arange(6, dtype=">f4").reshape(3, 2)[::-1]
    fixed.flags.writeable = False
    with LogitDump(folder("numpy")) as dump:
        dump.record(logits=fixed, target=np.asfortranarray(fixed > 2))
        dump.step()
    said["recorded_twice"] = caught(lambda: record_twice())
    with LogitDump(folder("other_levels"), levels=["P3", "P4"]) as dump:
        cls, box = dump.watch(HeadLoss()), dump.watch(HeadLoss(), boxes=True)
        said["other_levels"] = []
        for n in (2, 1, 1):  # as of a head that does not call it for levels without boxes
            for _ in range(2):
                cls(torch.ones(2, 2, requires_grad=True), torch.zeros(2, 2))
            for _ in range(n):
                box(torch.ones(2, 4, requires_grad=True), torch.zeros(2, 4))
            said["other_levels"] += caught(dump.step)
    os.mkdir(folder("closed"), 0o555)
    if not os.access(folder("closed"), os.W_OK):  # root may write everywhere
        said["closed"] = caught(lambda: LogitDump(folder("closed")))
    first, second = LogitDump(folder("shared"), wait=True), LogitDump(folder("shared"), wait=True)
    record_one(first)
    first.close()
    record_one(second)
    said["shared"] = caught(second.close)
    dump = LogitDump(folder("unused"))
    loss = dump.watch(nn.BCEWithLogitsLoss())
    loss.forward(torch.ones(2, 2, requires_grad=True), torch.zeros(2, 2))
    dump.step()
    said["unused"] = caught(dump.close)
    dump = LogitDump(folder("endless"))
    dump.watch(loss)(torch.ones(2, 2, requires_grad=True), torch.zeros(2, 2))
    said["endless"] = caught(dump.close)


def record_twice():
    with LogitDump(folder("twice")) as dump:
        for _ in range(2):
            dump.record(logits=torch.zeros(2, 2), target=torch.zeros(2, 2))


plain()
pyramid("levels", levels=["P3", "P4", "P5"])
pyramid("calls", compress=True)
narrow()
weighted()
full()
broken()
forked()
in_other_ways()
misused()
try:
    pyramid("safetensors", format="safetensors")
except ImportError:
    said["safetensors"] = None
with open(os.path.join(out, "said.json"), "w") as file:
    json.dump(said, file)
