"""Several processes: who is who before there is a process group, FSDP2 by torch's `fully_shard`, and whole tensors out of shards.

accelerate's own FSDP falls back to DDP without a word where there is no GPU, so sharding is done here, and checked.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from audiograft.train.recipe import Recipe
from audiograft.types import AudiograftError, ConfigError

_ON = ("1", "true", "yes", "on")
_PATIENCE = timedelta(days=1)
"""How long processes wait for one that is at work alone, asking a teacher or caching features; torch's own 10 or 30 minutes are too few."""


def process_count() -> int:
    """Processes of the run, as torchrun and `accelerate launch` announce them; known before there is a process group."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def shards(recipe: Recipe) -> bool:
    """Whether this run cuts its weights into shards; a single process has nobody to share with."""
    return recipe.parallel == "fsdp2" and process_count() > 1


def check_parallel(recipe: Recipe) -> None:
    """Refuse what contradicts itself, before any weights are loaded.

    Raises:
        ConfigError: the launcher's configuration and the recipe want different things, or FSDP2 can't do what the recipe asks for.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in _ON:
        raise ConfigError("accelerate's configuration has distributed_type: FSDP: take MULTI_GPU there, and set parallel: fsdp2 in the recipe")
    if recipe.parallel != "fsdp2":
        return
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in _ON:
        raise ConfigError("parallel: fsdp2 and DeepSpeed both shard: set parallel: ddp in the recipe, or launch without DeepSpeed")
    if recipe.quantisation is not None:
        raise ConfigError(f"parallel: fsdp2 can't shard {recipe.quantisation} weights: set parallel: ddp, or leave quantisation out")
    if recipe.precision == "fp16":
        raise ConfigError("parallel: fsdp2 has no loss scaling: set precision: bf16 or fp32, or parallel: ddp")


def join_processes(device: torch.device) -> PartialState:
    """The processes of the run as accelerate sees them. The first call makes the process group, so it has to come before the Trainer's own.

    Args:
        device: that this process computes on.
    """
    return PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up in one process or more; all have to ask."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())


def all_processes(value: Any) -> list[Any]:
    """A small value of each process, in their order; all have to ask."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def require_same_checkpoint(name: str | None, output_dir: str) -> None:
    """Stop where processes would go on from different steps.

    Raises:
        ConfigError: they found different checkpoints.
    """
    names = all_processes(name)
    if len(set(names)) > 1:
        found = " and ".join(sorted({str(item or "none") for item in names}))
        raise ConfigError(f"output_dir: the processes see different checkpoints in {output_dir} ({found}): put it on a disk that all nodes share")


def _decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The language model's layers: the heaviest list of modules that it has."""
    lists = [module for module in model.get_submodule("language_model").modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda modules: sum(parameter.numel() for parameter in modules.parameters()))


def without_weights(model: nn.Module) -> nn.Module:
    """A copy on the meta device, ties kept; buffers, which are small, are copied as they are."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)


def shard(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """Cut a model's parameters into one shard a process, in place (FSDP2, Zhao et al. 2023, arXiv:2304.11277).

    Each decoder layer is gathered when it is its turn. All else is one unit, gathered for the whole step: embeddings and head may share their
    weights, and how often the tower runs depends on a batch's clips, so that a unit of its own would leave processes waiting for each other.

    Args:
        model: with `language_model`; on any device, the same in all processes.
        device: that it is to compute on.
        precision: fp32 or bf16. With bf16, weights are gathered and used in bf16, and gradients reduced in fp32; shards keep their dtype.

    Returns:
        The model's structure without weights, for `gather`.

    Raises:
        AudiograftError: a parameter was left whole.
    """
    skeleton = without_weights(model)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    dtypes: dict[str, Any] = {} if precision == "fp32" else {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32}
    for layer in _decoder_layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=MixedPrecisionPolicy(**dtypes))
    # Without the cast, which would round the number of tokens that the loss is divided by; the model casts its features itself.
    fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(**dtypes, cast_forward_inputs=False))
    # Otherwise only the forward pass would gather.
    register_fsdp_forward_method(model, "generate")
    require_sharded(model)
    return skeleton


def require_sharded(model: nn.Module) -> None:
    """Raise `AudiograftError` where a parameter is not a shard."""
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, DTensor):
            raise AudiograftError(f"parallel: fsdp2 left {name} whole in every process: set parallel: ddp, and report this with the model's name")


def reshard(model: nn.Module) -> None:
    """Give gathered weights back, after which `model.parameters()` are shards again; a forward pass without a backward one leaves some gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its shards, where it is cut; all processes have to ask, in the same order."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor().detach()
    if hasattr(tensor, "ds_id"):  # DeepSpeed ZeRO-3
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor.detach()


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, cut as the parameter is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None)


@torch.no_grad()
def put(parameter: Tensor, values: Tensor) -> None:
    """Overwrite a parameter, cut or not, with the values of a whole tensor."""
    if isinstance(parameter, DTensor):
        cut = like(values.to(parameter.dtype), parameter)
        assert isinstance(cut, DTensor)
        parameter.to_local().copy_(cut.to_local())
    else:
        parameter.copy_(values)


def gather(model: nn.Module, skeleton: nn.Module, keep: bool) -> nn.Module:
    """Fill the skeleton with a sharded model's weights, on the CPU; all processes have to ask.

    Args:
        model: sharded, of the skeleton's structure.
        skeleton: from `shard`; changed in place.
        keep: whether this process wants the weights; elsewhere the skeleton stays empty, and no process has to hold two models.
    """
    reshard(model)
    names = dict(skeleton.named_parameters())
    filled: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        values = whole(parameter)
        if keep:
            filled[id(names[name])] = nn.Parameter(values.cpu(), requires_grad=parameter.requires_grad)
    if keep:
        for module in skeleton.modules():
            for own, empty in list(module.named_parameters(recurse=False)):
                module.register_parameter(own, filled[id(empty)])
    return skeleton.train(model.training)


def _values(state: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Each tensor of an optimiser's state, with the dict and key where it stands."""
    for key in sorted(state["state"]):
        values = state["state"][key]
        for name in sorted(values):
            if isinstance(values[name], Tensor):
                yield values, name, values[name]


def whole_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state as an optimiser of one process would have it, on the CPU; all processes have to ask."""
    state = optimizer.state_dict()
    result = {**state, "state": {key: dict(values) for key, values in state["state"].items()}}
    for values, name, tensor in list(_values(result)):
        values[name] = whole(tensor).cpu()
    return result


def put_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of one process into an optimiser whose parameters may be shards."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    of = dict(zip(numbers, parameters, strict=True))
    cut = {
        number: {name: like(item, of[number]) if isinstance(item, Tensor) else item for name, item in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": cut})
