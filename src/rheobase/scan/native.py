"""What generated kernels need of the machine: arrays and numbers at an address, a counter that threads share.

A kernel is a C function of one pointer, to slots of 64 bits: addresses, sizes, and numbers as float64. Any thread may
call it; those that do share the work, block by block, through the counters in the first slots.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

SLOTS = types.CPointer(types.int64)


def _pointer_to(dtype: Any) -> Any:
    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:  # noqa: ARG001
        """The address as a pointer."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(dtype)(types.int64), codegen

    return pointer


float32_at = _pointer_to(types.float32)
float64_at = _pointer_to(types.float64)
uint8_at = _pointer_to(types.uint8)
uint16_at = _pointer_to(types.uint16)
uint32_at = _pointer_to(types.uint32)
uint64_at = _pointer_to(types.uint64)


@intrinsic
def number(typingctx: Any, slots: Any, index: Any) -> Any:  # noqa: ARG001
    """The slot read as float64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.load(builder.gep(args[0], [args[1]]))
        return builder.bitcast(bits, context.get_value_type(signature.return_type))

    return types.float64(SLOTS, types.int64), codegen


@intrinsic
def take(typingctx: Any, slots: Any, index: Any) -> Any:  # noqa: ARG001
    """The slot's value, which is one more for whoever asks next."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.gep(args[0], [args[1]])
        return builder.atomic_rmw("add", pointer, context.get_constant(signature.return_type, 1), "acq_rel")

    return types.int64(SLOTS, types.int64), codegen


@intrinsic
def nonzero64(typingctx: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    """A word whose bit k says whether `array[index + k]` is not zero, for floats."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(context.get_value_type(signature.args[0].dtype), 64)
        first = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        x = builder.load(builder.bitcast(first, kind.as_pointer()), align=signature.args[0].dtype.bitwidth // 8)
        return builder.bitcast(builder.fcmp_unordered("!=", x, ir.Constant(kind, None)), ir.IntType(64))

    return types.uint64(array, types.intp), codegen


_PLACES = 64
"""Places that a loop can tell apart."""


def _place(context: Any, builder: Any, array: Any, data: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array)(context, builder, data).data, [index])


def _apart(builder: Any, access: Any, place: int) -> Any:
    """Say of a load or store that it touches nothing of other places, so that a loop needs no checks to vectorise."""
    module = builder.module
    domain = module.add_metadata([ir.MetaDataString(module, "rheobase")])
    scopes = [module.add_metadata([ir.MetaDataString(module, f"place {k}"), domain]) for k in range(_PLACES)]
    access.set_metadata("alias.scope", module.add_metadata([scopes[place]]))
    access.set_metadata("noalias", module.add_metadata([scope for k, scope in enumerate(scopes) if k != place]))
    return access


@intrinsic
def get(typingctx: Any, array: Any, index: Any, place: Any) -> Any:  # noqa: ARG001
    """`array[index]`, of an array that shares no memory with those of other places."""
    if not isinstance(place, types.IntegerLiteral):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _place(context, builder, signature.args[0], args[0], args[1])
        return _apart(builder, builder.load(where), place.literal_value % _PLACES)

    return array.dtype(array, types.intp, place), codegen


@intrinsic
def put(typingctx: Any, array: Any, index: Any, value: Any, place: Any) -> Any:  # noqa: ARG001
    """`array[index] = value`, in an array that shares no memory with those of other places."""
    if not isinstance(place, types.IntegerLiteral):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _place(context, builder, signature.args[0], args[0], args[1])
        _apart(builder, builder.store(args[2], where), place.literal_value % _PLACES)
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype, place), codegen
