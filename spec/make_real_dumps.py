"""Writes dumps with the libraries themselves, for spec/test_real_dumps.lua: make_real_dumps.py FOLDER

FOLDER/manifest.json says what each file holds: { "libraries": { name: version or null },
"files": [ { "library", "file", "arrays": [ { "name", "dtype", "shape", "hex" } ] or "refused": text } ] }
where hex are the elements in C order, little-endian, by the library that wrote them.
"""
import importlib
import itertools
import json
import os
import sys

out = sys.argv[1]
files = []


def load(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


np, torch, safetensors = load("numpy"), load("torch"), load("safetensors")


def path(name):
    return os.path.join(out, name)


def wrote(library, name, arrays):
    """arrays: name -> (dtype as ghm calls it, shape, bytes)."""
    files.append({"library": library, "file": name, "arrays": [
        {"name": key, "dtype": dtype, "shape": list(shape), "hex": data.hex()}
        for key, (dtype, shape, data) in arrays.items()]})


def refused(library, name, text):
    files.append({"library": library, "file": name, "refused": text})


DTYPES = ["f2", "f4", "f8", "i1", "u1", "b1", "i2", "i4", "i8"]
SHAPES = [(), (0,), (5,), (1, 5), (2, 3), (0, 4), (4, 2, 3)]


def numpy_array(rng, dtype, shape, order, fortran):
    """Any bit pattern, NaNs with their payload too; bools are 0 and 1."""
    dt = np.dtype(order + dtype)
    n = int(np.prod(shape, dtype=int))
    raw = rng.integers(0, 2 if dtype == "b1" else 256, n * dt.itemsize, dtype=np.uint8)
    return np.array(raw.view(dt).reshape(shape), order="F" if fortran else "C")


def told(a):
    return a.dtype.str[1:], a.shape, a.astype(a.dtype.newbyteorder("<")).tobytes("C")


def by_numpy():
    rng = np.random.default_rng(7)
    arrays = {}
    for dtype, shape, order, fortran in itertools.product(DTYPES, SHAPES, "<>", (False, True)):
        name = "_".join([dtype, "x".join(map(str, shape)) or "scalar", "le" if order == "<" else "be",
                         "f" if fortran else "c"])
        arrays[name] = numpy_array(rng, dtype, shape, order, fortran)
    arrays["strided"] = np.arange(60, dtype="<i2").reshape(5, 12)[::2, 3::4]
    expected = {name: told(a) for name, a in arrays.items()}
    for name, a in arrays.items():
        np.save(path(name + ".npy"), a)
        wrote("numpy", name + ".npy", {name: expected[name]})
    np.savez(path("stored.npz"), **arrays)
    wrote("numpy", "stored.npz", expected)
    np.savez_compressed(path("deflated.npz"), **arrays)
    wrote("numpy", "deflated.npz", expected)
    for version in (1, 2, 3):
        name = f"version_{version}"
        with open(path(name + ".npy"), "wb") as f:
            np.lib.format.write_array(f, arrays["f4_4x2x3_be_f"], version=(version, 0))
        wrote("numpy", name + ".npy", {name: expected["f4_4x2x3_be_f"]})
    # more members than the plain end record can count: sentinels and a zip64 record
    many = {f"a{k}": np.full((), k, "<i4") for k in range(65600)}
    np.savez(path("zip64.npz"), **many)
    wrote("numpy", "zip64.npz", {f"a{k}": told(many[f"a{k}"]) for k in (0, 65534, 65599)})
    np.savez(path("words.npz"), logits=arrays["f2_2x3_le_c"], names=np.array(["P3", "P10"]),
             raw=np.array([b"x"]), when=np.zeros(2, "M8[s]"), ids=np.arange(3, dtype="u4"),
             meta={"epoch": 3}, boxes=np.zeros(2, [("x", "f4")]))
    wrote("numpy", "words.npz", {"logits": expected["f2_2x3_le_c"]})
    for name, a, text in (("object", np.array([{}]), "object elements"),
                          ("complex", np.zeros(2, "c8"), "dtype '<c8'"),
                          ("record", np.zeros(2, [("x", "f4")]), "structured elements")):
        np.save(path(name + ".npy"), a)
        refused("numpy", name + ".npy", text)


def torch_dtypes():
    return {"f2": torch.float16, "bf16": torch.bfloat16, "f4": torch.float32, "f8": torch.float64,
            "i1": torch.int8, "u1": torch.uint8, "b1": torch.bool, "i2": torch.int16,
            "i4": torch.int32, "i8": torch.int64}


def torch_told(t):
    flat = t.detach().contiguous().reshape(-1)
    name = next(name for name, dtype in torch_dtypes().items() if dtype == t.dtype)
    return name, t.shape, bytes(flat.view(torch.uint8).tolist())


def torch_tensors():
    torch.manual_seed(7)
    tensors = {}
    for (name, dtype), shape in itertools.product(torch_dtypes().items(), SHAPES):
        n = torch.Size(shape).numel() * dtype.itemsize
        raw = torch.randint(0, 2 if name == "b1" else 256, (n,), dtype=torch.uint8)
        tensors[f"{name}_{'x'.join(map(str, shape)) or 'scalar'}"] = raw.view(dtype).reshape(shape)
    return tensors


def by_torch():
    tensors = torch_tensors()
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors.update(transposed=base.t(), part=base[1:3], column=base[:, 2], stepped=base[::2, 1::2],
                   expanded=base[0].expand(3, 6), parameter=torch.nn.Parameter(base * 2))
    expected = {name: torch_told(t) for name, t in tensors.items()}

    def save(name, value, arrays, **how):
        torch.save(value, path(name), **how)
        wrote("torch", name, arrays)

    save("all.pt", tensors, expected)
    save("bare.pt", base, {"bare": torch_told(base)})
    plain = {"step": 500, "lr": 1e-3, "big": 2**40, "names": ["P3", "P4"], "done": True, "no": None,
             "size": base.shape}
    save("nested.pth", {**plain, "P3": {"logits": base, "pair": (base[0], [base[1]])}},
         {"P3.logits": torch_told(base), "P3.pair.0": torch_told(base[0]),
          "P3.pair.1.0": torch_told(base[1])})
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    save("state_dict.pth", state, {name: torch_told(t) for name, t in state.items()})
    if hasattr(torch.serialization, "set_crc32_options"):
        torch.serialization.set_crc32_options(False)
        save("no_crc.pt", tensors, expected)
        torch.serialization.set_crc32_options(True)
    config = getattr(torch.utils, "serialization", None)
    if config:
        with config.config.patch("save.storage_alignment", 1):
            save("unaligned.pt", tensors, expected)

    for name, value, text, how in (
            ("legacy.pt", base, "legacy format", {"_use_new_zipfile_serialization": False}),
            ("module.pt", torch.nn.Linear(3, 2), "save module.state_dict()", {}),
            ("quantized.pt", {"x": base, "q": torch.quantize_per_tensor(base, 0.1, 0, torch.qint8)},
             "array 'q'", {}),
            ("uint16.pt", {"x": base, "in": {"u": base.to(torch.uint16), "y": base}}, "array 'in.u'", {}),
            ("device.pt", {"x": base, "on": [torch.device("cpu")]}, "array 'on.0'", {}),
            ("numpy.pt", {"logits": base.numpy()}, "save torch.as_tensor(x)", {}),
            ("numpy_scalar.pt", {"x": base, "lr": np.float64(0.1)}, "array 'lr'", {}),
            ("lists.pt", {"logits": [0.5, 1.5]}, "a list of numbers, expected torch.tensor(x)", {}),
            ("tuple_key.pt", {("a", 1): base}, "a dict's key is a tuple", {}),
            ("complex.pt", base + 1j, "refused global 'torch.ComplexFloatStorage'", {}),
            ("sparse.pt", {"s": base.to_sparse()}, "save x.to_dense()", {}),
            ("negative.pt", (base + 1j).conj().imag, "save x.resolve_conj()", {}),
            ("protocol.pt", base, "pickle protocol 4", {"pickle_protocol": 4}),
            ("empty.pt", plain, "holds no tensors", {})):
        torch.save(value, path(name), **how)
        refused("torch", name, text)


def by_safetensors():
    if np:
        import safetensors.numpy
        rng = np.random.default_rng(8)
        arrays = {f"{dtype}_{'x'.join(map(str, shape)) or 'scalar'}_{order}": numpy_array(
            rng, dtype, shape, order, False)
            for dtype, shape, order in itertools.product(DTYPES, SHAPES, "<>")}
        safetensors.numpy.save_file(arrays, path("numpy.safetensors"), metadata={"step": "500"})
        wrote("safetensors", "numpy.safetensors", {name: told(a) for name, a in arrays.items()})
    if torch:
        import safetensors.torch
        tensors = torch_tensors()
        safetensors.torch.save_file(tensors, path("torch.safetensors"))
        wrote("safetensors", "torch.safetensors", {n: torch_told(t) for n, t in tensors.items()})
        safetensors.torch.save_file({"x": torch.zeros(4).to(torch.float8_e4m3fn)}, path("f8.safetensors"))
        refused("safetensors", "f8.safetensors", "dtype 'F8_E4M3' is not read")


if np:
    by_numpy()
if torch:
    by_torch()
if safetensors:
    by_safetensors()
with open(path("manifest.json"), "w") as f:
    json.dump({"libraries": {name: module and module.__version__ for name, module in
                             (("numpy", np), ("torch", torch), ("safetensors", safetensors))},
               "files": files}, f)
