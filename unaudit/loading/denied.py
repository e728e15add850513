"""Names that no honest checkpoint needs; a pickle that mentions one is refused, not just ignored.

The inert reader would run none of them. The list only tells an attack from an odd file, so it may
be incomplete: what is missing here is still never imported.
"""

from __future__ import annotations

_MODULE_WORDS = """
    _pickle _posixsubprocess _thread asyncio atexit bdb cProfile cffi
    code.InteractiveConsole code.InteractiveInterpreter code.interact codeop ctypes
    distutils ensurepip fileinput ftplib gc http httpx imp importlib inspect linecache
    marshal multiprocessing nt os paramiko pdb pickle pip pkgutil popen2 posix profile pty pydoc
    requests runpy shutil signal smtplib socket socketserver ssl subprocess sys tarfile tempfile
    threading timeit urllib urllib3 webbrowser winreg xmlrpc zipfile zipimport
    numpy.distutils numpy.f2py numpy.testing
    torch.distributed.rpc torch.hub torch.jit torch.package torch.utils.collect_env
    torch.utils.cpp_extension
"""
_BUILTIN_WORDS = """
    __build_class__ __import__ apply breakpoint compile delattr eval exec execfile exit file
    getattr globals help input locals open quit raw_input reload setattr vars
"""
_ATTRIBUTE_WORDS = """
    __bases__ __builtins__ __call__ __class__ __closure__ __code__ __dict__ __getattribute__
    __globals__ __import__ __loader__ __mro__ __reduce__ __reduce_ex__ __self__ __spec__
    __subclasses__
"""
_MODULES = frozenset(_MODULE_WORDS.split())
_BUILTINS = frozenset(_BUILTIN_WORDS.split())
_ATTRIBUTES = frozenset(_ATTRIBUTE_WORDS.split())
_EXACT = frozenset(
    {
        "numpy.fromfile",
        "numpy.load",
        "numpy.memmap",
        "numpy.save",
        "torch.load",
        "torch.save",
        "torch.serialization.load",
        "types.CodeType",
        "types.FunctionType",
        "_io.FileIO",
        "_io.open",
        "io.FileIO",
        "io.open",
        "io.open_code",
    }
)
# What Python 2, and so a pickle of protocol 2 or below, calls these modules
_RENAMED = {
    "__builtin__": "builtins",
    "_winreg": "winreg",
    "cPickle": "pickle",
    "commands": "subprocess",
    "copy_reg": "copyreg",
    "httplib": "http.client",
    "thread": "_thread",
    "urllib2": "urllib.request",
}


def canonical(module: str, name: str) -> str:
    """``module.name`` as Python 3 calls it."""
    return f"{_RENAMED.get(module, module)}.{name}"


def is_denied(module: str, name: str) -> bool:
    """Whether the global ``name`` of ``module`` has no place in a checkpoint."""
    full = canonical(module, name)
    if full in _EXACT or _within_denied_module(full):
        return True
    path = name.split(".")
    if _RENAMED.get(module, module) == "builtins" and path[0] in _BUILTINS:
        return True
    # A dotted name walks through attributes: 'torch' + 'os.system' reaches os as well as 'os' does
    return bool(_ATTRIBUTES.intersection(path)) or bool(_MODULES.intersection(path[:-1]))


def _within_denied_module(full: str) -> bool:
    parts = full.split(".")
    return any(".".join(parts[:length]) in _MODULES for length in range(1, min(len(parts), 6)))
