"""CVAT's auto-annotation function, held against the checks of its SDK and command line."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image

from tagmask.engine.compute import Compute
from tagmask.model import Model
from tests.seams.pictures import CLASSES
from tests.seams.pixel import chart, trained

sdk = pytest.importorskip("cvat_sdk.auto_annotation")
from cvat_sdk import masks, models  # noqa: E402
from cvat_sdk.auto_annotation import driver  # noqa: E402

from tagmask.integrations.cvat import Function  # noqa: E402

SIZE = (40, 56)


def context(threshold: float | None = None, polygons: bool = False):
    return driver._DetectionFunctionContextImpl(
        frame_name="a.png", conf_threshold=threshold, conv_mask_to_poly=polygons
    )


def task_labels(kind: str = "any"):
    """Labels as a CVAT task has them, with numbers of its own."""
    return [
        models.Label(id=70 + n, name=name, type=kind, attributes=[], sublabels=[], color="#000000")
        for n, name in enumerate(CLASSES)
    ]


def mapper(function, polygons: bool = False, kind: str = "any"):
    return driver._AnnotationMapper(
        logging.getLogger("test"),
        function.spec.labels,
        task_labels(kind),
        allow_unmatched_labels=False,
        conv_mask_to_poly=polygons,
    )


@pytest.fixture
def function():
    return Function(Model(trained(), Compute.choose("cpu")))


def test_the_sdk_takes_the_labels_and_the_mask_shapes(function):
    pixels, labels = chart(SIZE)
    shapes = function.detect(context(), Image.fromarray(pixels))
    tags, taken = mapper(function, kind="mask").validate_and_remap(shapes, 5)
    assert tags == []
    assert [(shape.label_id, shape.type.value, shape.frame) for shape in taken] == [
        (70, "mask", 5),
        (71, "mask", 5),
        (72, "mask", 5),
    ]
    for shape in taken:
        found = masks.decode_mask(shape.points, image_width=SIZE[1], image_height=SIZE[0])
        assert np.array_equal(found, labels == shape.label_id - 69)


def test_polygons_where_the_caller_wants_them(function):
    square = np.zeros((20, 30, 3), np.uint8)
    square[5:12, 8:20] = (230, 30, 20)
    shapes = function.detect(context(polygons=True), Image.fromarray(square))
    _, taken = mapper(function, polygons=True, kind="polygon").validate_and_remap(shapes, 0)
    (shape,) = taken
    points = np.reshape(shape.points, (-1, 2))
    assert shape.type.value == "polygon"
    assert (points.min(0).tolist(), points.max(0).tolist()) == ([8, 5], [20, 12])


def test_regions_apart_and_a_threshold(function):
    two = np.zeros((20, 30, 3), np.uint8)
    two[2:6, 2:8] = two[12:18, 20:28] = (230, 30, 20)
    picture = Image.fromarray(two)
    apart = Function(Model(trained(), Compute.choose("cpu")), separate=True)
    assert len(function.detect(context(), picture)) == 1
    assert len(apart.detect(context(), picture)) == 2
    faint = Image.fromarray(np.where(two, (150, 0, 0), 0).astype(np.uint8))
    assert len(apart.detect(context(threshold=0.5), faint)) == 2
    assert apart.detect(context(threshold=0.99), faint) == []


def test_the_command_line_loads_the_module_with_its_parameters(tmp_path):
    common = pytest.importorskip("cvat_cli._internal.common")
    from tagmask.models.trained import build_method, save_method
    from tests.contract.test_methods import TINY

    method = build_method("more", TINY["more"], 2)
    from tagmask.data import ClassTable

    save_method(tmp_path / "m", method, "more", ClassTable(("cat", "dog")), {}, {})
    given = {"model": str(tmp_path / "m"), "device": "cpu", "separate": True}
    function = common.FunctionLoader("tagmask.tools.cvat", None, given).load()
    assert [label.name for label in function.spec.labels] == ["cat", "dog"]
    assert isinstance(function.spec, sdk.DetectionFunctionSpec)
    shapes = function.detect(context(), Image.new("RGB", (64, 48)))
    assert all(shape.type.value == "mask" for shape in shapes)


def test_a_label_that_the_task_lacks_is_the_sdks_own_error(function):
    with pytest.raises(sdk.BadFunctionError, match="is not in dataset"):
        driver._AnnotationMapper(
            logging.getLogger("test"),
            function.spec.labels,
            task_labels()[:1],
            allow_unmatched_labels=False,
            conv_mask_to_poly=False,
        )
