"""Compile the kernels of a neuron for a GPU, without one, and print the operations of their assembly.

`python triton_compile.py NEURON-DTYPE ...`: a line for each kernel, "NEURON-DTYPE KERNEL operation operation ...".
"""

import importlib
import re
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import rheobase as rb
from rheobase.neurons import create_neuron
from rheobase.scan import run_triton

POINTER = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


def compile_only(kernel, programs, layout, device, arguments):
    """In place of a launch; arguments are specialised as Triton does: pointers and multiples of 16, and ones."""
    signature, constants, attributes = {}, {}, {}
    for k, (name, argument) in enumerate(zip(kernel.arg_names, arguments, strict=True)):
        if isinstance(argument, torch.Tensor):
            signature[name] = POINTER[argument.dtype]
        elif isinstance(argument, float):
            signature[name] = "fp32"
            continue
        elif argument == 1:
            signature[name], constants[(k,)] = "constexpr", 1
        else:
            signature[name] = "i32"
        if isinstance(argument, torch.Tensor) or argument % 16 == 0:
            attributes[(k,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    options = {"num_warps": layout.tile // 128, "enable_fp_fusion": False}
    assembly = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    operations = re.findall(r"^\s*(?:@%p\d+ )?([a-z][a-z0-9_.:]*)", assembly, re.M)
    print(case, kernel.__name__, *sorted(set(operations)))


run_triton._launch = compile_only
importlib.import_module("rheobase.scan.engine")._INTERPRETED = True
run_triton._INTERPRETED_TILE = 512
for case in sys.argv[1:]:
    name, _, dtype = case.partition("-")
    neuron = create_neuron(name)
    x = torch.zeros(12, 2, 2048, dtype=getattr(torch, dtype), requires_grad=True)
    with rb.engine("triton"):
        y = neuron(x)
        torch.autograd.grad(y, [x, *neuron.parameters()], torch.zeros_like(y))
