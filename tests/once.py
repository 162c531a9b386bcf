"""What tests ask libraries for many times over, and what these work out anew each time: once a process."""

from __future__ import annotations

import copy
import functools
import io
import os
import pickle
import re
import shutil
import tempfile
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path
from typing import Any


def parse_once() -> None:
    """The same few interpolations are composed a thousand times; their parser is written in Python."""
    from omegaconf import _utils, base, grammar_parser

    base.parse = _utils.parse = functools.lru_cache(maxsize=1024)(grammar_parser.parse)


def load_once() -> None:
    """The same few files of `conf/` are loaded ten thousand times: each once, until it changes on disk."""
    from hydra._internal import config_repository
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    repository = config_repository.ConfigRepository
    load, embed = repository.load_config, ConfigLoaderImpl._embed_result_config
    loaded: dict[object, Any] = {}

    def kept(self: Any, config_path: str) -> Any:
        source = self._find_object_source(config_path, config_repository.ObjectType.CONFIG)
        stored: object = ()
        if type(source).__name__ == "FileConfigSource":  # Hydra imports it twice, as a plugin and by its name
            stat = Path(source.path, source._normalize_file_name(config_path)).stat()
            stored = stat.st_ino, stat.st_size, stat.st_mtime_ns
        elif type(source).__name__ != "ImportlibResourcesConfigSource":
            return load(self, config_path)
        key = source.path, source.provider, config_path, stored
        if key not in loaded:
            loaded[key] = load(self, config_path)
        return copy.copy(loaded[key])

    def apart(found: Any, package: str | None) -> Any:
        # what becomes the root of a configuration is changed there
        embedded = embed(found, package)
        if embedded.config is found.config:
            embedded = copy.copy(embedded)
            embedded.config = copy.deepcopy(embedded.config)
        return embedded

    repository.load_config = kept
    ConfigLoaderImpl._embed_result_config = staticmethod(apart)


@functools.cache
def compile_once() -> None:
    """The same few parts are compiled many times, most of a second each: each once, for the latest that were asked for.

    The same is what has the same bytes and settings, but for the numbers that OpenVINO gives to operations of ours.
    A process that was forked has its own: threads of a compiled model do not come along.
    """
    import openvino

    from lora_sam.predictors.openvino_parts import openvino_core

    compile_model = openvino.Core.compile_model
    compiled: OrderedDict[object, Any] = OrderedDict()

    def kept(self: Any, model: Any, device_name: str | None = None, config: Any = None, **others: Any) -> Any:
        # NNCF hands over a model of another class
        is_path = isinstance(model, str | os.PathLike) and Path(model).suffix == ".xml"
        if self is not openvino_core() or others or not (is_path or isinstance(model, openvino.Model)):
            return compile_model(self, model, device_name, config, **others)
        with tempfile.TemporaryDirectory() as place:
            # of its own: a test may write other bytes into the file whose weights a model that is kept reads
            files = [Path(place, f"model.{ending}") for ending in ("xml", "bin")]
            if isinstance(model, openvino.Model):
                openvino.serialize(model, *files)
            else:
                for file in files:
                    shutil.copy(Path(model).with_suffix(file.suffix), file)
            text, weights = (file.read_bytes() for file in files)
            text = re.sub(rb' name="[A-Z][A-Za-z]*_?\d+', b"", text)
            asked = repr(sorted((config or {}).items()))
            key = os.getpid(), device_name, asked, sha256(text).digest(), sha256(weights).digest()
            if key not in compiled:
                compiled[key] = compile_model(self, self.read_model(files[0]), device_name, config)
        compiled.move_to_end(key)
        while len(compiled) > 32:
            compiled.popitem(last=False)
        return compiled[key]

    openvino.Core.compile_model = kept


@functools.cache
def convert_once() -> None:
    """The same few modules are traced and converted to OpenVINO many times, some seconds each: each once.

    The same is what has the same structure, settings, weights and methods; who asks gets a copy.
    """
    import torch

    from lora_sam.deployment import ir_parts

    convert = ir_parts._converted
    converted: OrderedDict[bytes, Any] = OrderedDict()

    class Content(pickle.Pickler):
        def persistent_id(self, one: Any) -> Any:
            if not isinstance(one, torch.Tensor):
                return None
            return str(one.dtype), tuple(one.shape), one.detach().contiguous().numpy().tobytes()

    def kept(module: Any, example: Any, shapes: list[str]) -> Any:
        written = io.BytesIO()
        methods = {(kind.__qualname__, id(kind.forward)) for kind in map(type, module.modules())}
        try:
            Content(written).dump((module.eval(), shapes, sorted(methods)))
        except (pickle.PicklingError, AttributeError, TypeError):  # of a test, within a function
            return convert(module, example, shapes)
        key = sha256(written.getvalue()).digest()
        if key not in converted:
            converted[key] = convert(module, example, shapes)
        converted.move_to_end(key)
        while len(converted) > 32:
            converted.popitem(last=False)
        return converted[key].clone()

    ir_parts._converted = kept
