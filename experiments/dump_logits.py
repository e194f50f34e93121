"""Records what a training's losses see, one file per step, for ghm.  Copy or import this file.

    dump = LogitDump("runs/dump", every=100)            # needs torch and numpy
    criterion = dump.watch(nn.BCEWithLogitsLoss())      # or dump.watch(head.loss_cls) and
    for images, targets in loader:                      #    dump.watch(head.loss_bbox, boxes=True)
        loss = criterion(model(images), targets)
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        dump.step()                                     # the step ends
    dump.close()                                        # waits for the files; or use "with"

    luajit experiments/sweep_bins.lua runs/dump

A watched loss is any module called with (pred, target, weight), as mmdetection's are, or with
(input, target); calls without gradient, as in validation, are not recorded, nor is what gradient
checkpointing runs again, nor loss.forward(...), which has no hooks.  Under torch.compile it breaks
the graph, so not with fullgraph=True.  Copies and saved files of the module have no part in the
dump.

A loss that is a function, as torchvision.ops.sigmoid_focal_loss, has its tensors recorded beside
it, in training alone:

    dump.record(logits=logits, target=targets)          # or labels=, label_weights=, bbox_pred=,
                                                        #    bbox_target=, bbox_weights=; level="P3"

A watched loss that is called several times in a step, once for each level of a feature pyramid,
becomes call0_logits, call1_logits, ... or, with levels=["P3", "P4"], P3_logits, P4_logits.  So do
the parts of an accumulated gradient, unless each ends with dump.step().  Of several losses for
classes, or for boxes, each needs a dump of its own.

A training that goes on from a checkpoint after n steps opens its dump by append=True, start=n:
steps from n on are written anew.  In distributed training give each rank a folder of its own,
f"runs/dump/rank{rank}", or only one rank a dump.
"""
import atexit
import contextlib
import os
import queue
import re
import threading
import warnings

import numpy as np
import torch

try:
    from torch.compiler import disable as untraced
except ImportError:  # torch 2.0
    from torch._dynamo import disable as untraced

CLASS_NAMES = {"pred": "logits", "target": "target", "labels": "labels", "weight": "label_weights"}
BOX_NAMES = {"pred": "bbox_pred", "target": "bbox_target", "weight": "bbox_weights"}
PREDICTIONS = {"logits", "cls_logits", "cls_score", "pred_logits", "pred", "bbox_pred", "box_pred"}

WIDER = (torch.float32, torch.float64, torch.bfloat16)  # than float16; numpy has no bfloat16

# What losses call their parameters, in their order.
PARAMETERS = (("pred", "input", "inputs", "logits", "cls_score", "bbox_pred"),
              ("target", "targets", "label", "labels", "bbox_target"),
              ("weight", "label_weight", "bbox_weight"))


class LogitDump:
    """Writes FOLDER/step_000000.npz, ...: tensors are copied when they are recorded and written by a
    thread of its own, each file under another name first, so that there is never half a file.

    folder    made if need be; one that holds steps already is refused unless append is given
    every     record each step whose number is a multiple of this
    start     number of the first step; by default 0, or with append the one after the last
    half      store predictions as float16, unless that makes one infinite
    levels    names of the calls of a loss within a step: letters, then a number
    format    "npz", or "safetensors" if that is installed
    compress  deflate the .npz: smaller, but then it is not read where it lies
    room      steps that may wait to be written.  When there is no more room, a step is left out,
              and close() tells how many were, or with wait=True training waits
    """

    def __init__(self, folder, every=1, start=None, half=False, levels=None, format="npz",
                 compress=False, room=8, wait=False, append=False):
        for level in levels or ():
            if not re.fullmatch("[A-Za-z]*[0-9]+", level):
                raise ValueError(f"level {level!r}: expected letters, then a number: P3, level0")
        if format not in ("npz", "safetensors"):
            raise ValueError(f"format is {format!r}, expected npz or safetensors")
        if every < 1 or room < 1:
            raise ValueError(f"every is {every}, room is {room}: expected at least 1")
        if format == "safetensors":
            import safetensors.torch
            self.save_safetensors = safetensors.torch.save_file
        os.makedirs(folder, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder}: nothing can be written there")
        names = os.listdir(folder)
        there = [int(name[5:].split(".")[0]) for name in names if re.match("step_[0-9]+[.]", name)]
        if there and not append:
            raise FileExistsError(f"{folder} holds the steps of another run; append=True adds to it")
        for name in names if append else ():  # of a process that was killed
            if re.match("[.]step_[0-9]+[.].*[.]part$", name):
                os.remove(os.path.join(folder, name))
        self.folder, self.every, self.process = folder, every, os.getpid()
        self.append = append
        self.number = start if start is not None else max(there, default=-1) + 1
        self.half, self.levels, self.format, self.compress = half, levels, format, compress
        self.wait, self.left_out, self.error, self.told = wait, [], None, False
        self.arrays, self.calls, self.handles, self.devices = {}, [], [], set()
        self.odd, self.any, self.stepped = set(), False, False
        self.queue = queue.Queue(room)
        self.thread = threading.Thread(target=self._write_all, name="LogitDump", daemon=True)
        self.thread.start()
        atexit.register(self.close)

    @property
    def active(self):
        """Whether this step is recorded."""
        return (self.number % self.every == 0 and self.thread is not None and self.error is None
                and self._has_writer())

    def record(self, level=None, **tensors):
        """Adds tensors to this step, under their names; level goes before them.  None is none."""
        if self.active:
            for name, tensor in tensors.items():
                if tensor is not None:
                    if isinstance(tensor, np.ndarray):  # as torch takes it: this order and sign
                        tensor = np.array(tensor, tensor.dtype.newbyteorder("="), order="C")
                    self._add(level, name, self._copy(torch.as_tensor(tensor)))

    def watch(self, loss, boxes=False):
        """Records each call of a loss module; returns the module, which stays as it is."""
        calls = []
        forward = again = None  # the last step with a call outside backward(), the last backward()
        self.calls.append(calls)
        if getattr(loss, "pos_weight", None) is not None:
            warnings.warn("pos_weight is not recorded: no loss of ghm has one")

        def before(module, args, kwargs):
            nonlocal forward, again
            if not self.active or not torch.is_grad_enabled():
                return
            backward = torch._C._current_graph_task_id()
            if backward == -1:
                forward = self.number
            elif forward == self.number:  # checkpointing runs again what was recorded
                return
            elif backward == again:
                warnings.warn("a loss runs several times in one backward(), by checkpointing: "
                              "use_reentrant=False keeps its calls in order")
            again = backward
            parts = _parts(module, args, kwargs, boxes)
            try:
                calls.append({name: self._copy(tensor) for name, tensor in parts.items()})
            except (RuntimeError, TypeError) as error:  # on the meta device, in vmap, of float8, ...
                warnings.warn(f"a call of {type(module).__name__} is not recorded: {error}")

        self.handles.append(loss.register_forward_pre_hook(_Hook(before), with_kwargs=True))
        return loss

    def step(self):
        """Ends a step: what was recorded goes to the writer."""
        if self.error and not self.told:
            self.told = True
            warnings.warn(f"{self.folder}: no more steps are written: {self.error}")
        for calls in self.calls:
            for level, call in zip(self._levels(calls), calls):
                for name, tensor in call.items():
                    self._add(level, name, tensor)
            calls.clear()
        number, self.number = self.number, self.number + 1
        arrays, self.arrays, self.stepped = self.arrays, {}, True
        if arrays and self._has_writer():
            self.any = True
            copied = [torch.cuda.current_stream(d).record_event() for d in self.devices]
            try:
                self.queue.put((number, arrays, copied), block=self.wait)
            except queue.Full:
                self.left_out.append(number)

    def close(self):
        """Waits until all is written.  Raises what went wrong with it; warns of steps left out."""
        thread, self.thread = self.thread, None
        if thread is None or not self._has_writer():
            return
        atexit.unregister(self.close)
        for handle in self.handles:
            handle.remove()
        self.queue.put(None)
        thread.join()
        if not self.any:
            warnings.warn(f"{self.folder}: holds no step of this run: " + (
                "no watched loss was called with gradients, nothing was recorded" if self.stepped
                else "dump.step() was not called"))
        if self.left_out:
            warnings.warn(f"{self.folder}: left out because they came faster than they could be "
                          f"written: {len(self.left_out)}, the first step {self.left_out[0]}; "
                          "every=, room= or wait=True")
        if self.error:
            raise self.error

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()

    def _has_writer(self):
        """Not in a process that was forked, as a loader's workers are: threads stay behind."""
        return os.getpid() == self.process

    def _levels(self, calls):
        n = len(calls)
        if self.levels and n not in (0, len(self.levels)):
            if n not in self.odd:  # said once, and no reason to end a training
                self.odd.add(n)
                warnings.warn(f"a loss is called {n} times in step {self.number}, levels names "
                              f"{len(self.levels)}: {', '.join(self.levels)}; in such steps its "
                              f"{', '.join(calls[0])} are left out")
            return []
        return self.levels or ([None] if n == 1 else [f"call{k}" for k in range(n)])

    def _add(self, level, name, tensor):
        full = f"{level}_{name}" if level else name
        if full in self.arrays:
            raise ValueError(f"{full} is recorded twice in step {self.number}: end steps by step(), "
                             "name calls by level=, give each of several losses a dump of its own")
        self.arrays[full] = name, tensor

    def _copy(self, tensor):
        """A copy in CPU memory that training does not touch; from a GPU it may be on its way."""
        tensor = tensor.detach()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        if tensor.device.type != "cuda":
            copy = tensor.to("cpu", copy=True)
            copy.new_empty(0).float().numpy()  # raises where there are no elements behind it
            return copy
        self.devices.add(tensor.device)
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    # -- in the writer's thread ----------------------------------------------------------------

    def _write_all(self):
        while (step := self.queue.get()) is not None:
            try:
                if self.error is None:
                    self._write(*step)
            except Exception as error:
                self.error = error  # step() warns of it, close() raises it; training goes on

    def _write(self, number, arrays, copied):
        for event in copied:
            event.synchronize()
        arrays = {full: self._narrow(name, tensor) for full, (name, tensor) in arrays.items()}
        arrays["step"] = torch.tensor(number)
        file_name = f"step_{number:06d}.{self.format}"
        part = os.path.join(self.folder, f".{file_name}.{os.getpid()}.part")
        try:
            if self.format == "safetensors":
                self.save_safetensors({n: t.contiguous() for n, t in arrays.items()}, part)
            else:
                with open(part, "wb") as file:
                    save = np.savez_compressed if self.compress else np.savez
                    save(file, **{n: _numpy(t) for n, t in arrays.items()})
            if not self.append and os.path.exists(os.path.join(self.folder, file_name)):
                raise FileExistsError(f"another process has written {file_name} there: give each a "
                                      "folder of its own")
            os.replace(part, os.path.join(self.folder, file_name))
        finally:
            if os.path.exists(part):
                os.remove(part)

    def _narrow(self, name, tensor):
        if self.half and name in PREDICTIONS and tensor.dtype in WIDER:
            half = tensor.half()
            return half if torch.equal(half.isinf(), tensor.isinf()) else tensor
        return tensor


class _Hook:
    """A hook that torch.compile does not look into, and that copies of its module lack."""

    def __init__(self, call):
        self.call = call

    @untraced
    def __call__(self, *args):
        self.call(*args)

    def __reduce__(self):
        return getattr, (contextlib.nullcontext(), "__exit__")  # takes anything and does nothing


def _numpy(tensor):
    """C order, of which ghm reads blocks; float32 for bfloat16, which numpy has not got."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def _parts(module, args, kwargs, boxes):
    """The tensors of a call of a loss, under the names that ghm looks for."""
    parts = {}
    for k, names in enumerate(PARAMETERS):
        found = args[k] if k < len(args) else next((kwargs[n] for n in names if n in kwargs), None)
        if isinstance(found, torch.Tensor):
            parts[names[0]] = found
    if "pred" not in parts or "target" not in parts:
        raise ValueError(f"{type(module).__name__} is not called with tensors (pred, target, ...), "
                         "nor by their usual names: dump.record(logits=..., target=...) takes any")
    if isinstance(module, torch.nn.BCEWithLogitsLoss) and module.weight is not None:
        parts["weight"] = module.weight.expand_as(parts["pred"])
    names = BOX_NAMES if boxes else CLASS_NAMES
    if not boxes and parts["target"].dim() < parts["pred"].dim():
        parts["labels"] = parts.pop("target")
    return {names[part]: tensor for part, tensor in parts.items()}
