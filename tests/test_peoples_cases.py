"""What people have reported of tools that do this job: each case has its test, and the last of them are here.

The numbers are those of a list of public complaints; each builds its own small input.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.folders_of_people import BOX, HEIGHT, WIDTH, picture
from tokenmix.checkpoints import convert
from tokenmix.cli import main
from tokenmix.sources import load_data

CASES = {
    "01 judged on pictures it learnt from": "peoples_classes::test_a_run_is_judged_by_its_own_test_pictures",
    "02 labels right beside the pictures": "peoples_objects::test_label_files_are_found_by_their_names",
    "03 two files number classes differently": "peoples_objects::test_each_file_of_coco_has_its_own_numbers",
    "04 grey levels that are no classes": "peoples_objects::test_masks_are_numbers_of_classes_or_black_and_white",
    "05 Training/Testing": "peoples_classes::test_the_names_of_splits_are_those_that_people_use",
    "06 new pictures to judge": "peoples_classes::test_other_folders_are_judged_whole",
    "07 HEIC, MPO, no ending": "peoples_classes::test_every_file_is_used_ignored_or_named",
    "08 notes.json taken for COCO": "peoples_objects::test_notes_in_json_are_no_annotations",
    "09 broken pictures to calibrate": "safety_data::test_broken_and_hidden_files_of_a_calibration_folder_are_left_out",
    "10 boxes of pictures that EXIF turns": "peoples_objects::test_boxes_of_a_picture_that_was_turned_since",
    "12 photos and photos/": "peoples_classes::test_data_are_known_by_what_they_are",
    "13 labels were put right": "peoples_classes::test_data_are_known_by_what_they_are",
    "14 every object is thrown away": "peoples_objects::test_harmless_spellings_read_the_same",
    "15 val is train": "peoples_objects::test_pictures_of_two_parts_are_told",
    "16 a detection set checked as classes": "peoples_objects::test_a_set_is_checked_as_what_it_is",
    "17 one channel": "peoples_classes::test_models_of_other_channels_are_refused_in_one_line",
    "18 out of memory": "machine_conditions::test_a_run_that_lacks_memory_says_what_fits_and_goes_on",
    "19 key points behind a box": "peoples_objects::test_key_points_behind_a_box_are_no_polygon",
    "23 a part of the pictures": "peoples_objects::test_a_part_of_the_pictures_is_enough",
    "24 a class called train": "peoples_classes::test_the_names_of_splits_are_those_that_people_use",
    "25 names that are not UTF-8": "safety_data::test_predict_answers_the_others_under_any_name",
    "26 a console in cp1252": "machine_conditions::test_a_console_shows_what_it_can",
    "28 masks in JPEG": "peoples_objects::test_masks_in_jpeg_are_read_by_threshold_or_refused",
    "29 own classes in VOC's layout": "peoples_cases::test_own_classes_in_vocs_layout_keep_their_names",
    "32 very long names": "safety_data::test_long_names_are_shortened",
    "33 names in other scripts": "pictures::test_a_name_that_no_font_has_is_drawn_as_its_number",
    "35 flat polygons, bad parts": "peoples_objects::test_harmless_spellings_read_the_same",
    "38 unlabelled pictures in test/": "peoples_classes::test_every_file_is_used_ignored_or_named",
    "40 a predictor in several processes": "runtime::test_a_predictor_answers_in_other_processes_too",
    "41 a part of one picture": "peoples_cases::test_parts_of_one_picture_are_refused_before_training",
    "42 an exported file to judge": "exported::test_a_file_says_what_its_model_says",
    "43 validation at twelve megapixels": "tasks_dense::test_large_pictures_are_classified_in_strips",
    "44 workers and open files": "loader_stall::test_a_batch_of_many_tensors_needs_few_files",
    "45 the names of ImageNet's classes": "peoples_cases::test_published_weights_answer_by_name",
}


def test_every_case_has_its_test() -> None:
    """In the file that is named here, by that name."""
    here = Path(__file__).parent
    for case, place in CASES.items():
        file, name = place.split("::")
        assert f"\ndef {name}(" in (here / f"test_{file}.py").read_text(encoding="utf-8"), case


@pytest.mark.parametrize("tool", ["labelme", "CVAT"])
def test_own_classes_in_vocs_layout_keep_their_names(
    tmp_path: Path, tool: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of labelme numbers, a palette and ``class_names.txt``; of CVAT colours and ``labelmap.txt``."""
    colours = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255]], np.uint8)
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[BOX[1] : BOX[1] + BOX[3], BOX[0] : BOX[0] + BOX[2]] = 1
    values[-4:, :9] = 2
    (tmp_path / "SegmentationClass").mkdir()
    for number in range(8):
        spots = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)  # no two look alike
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        Image.fromarray(spots).resize((WIDTH, HEIGHT)).save(tmp_path / "JPEGImages" / f"{number}.jpg")
        mask = Image.fromarray(values if tool == "labelme" else colours[values])
        if tool == "labelme":
            mask = mask.convert("P")
            mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        mask.save(tmp_path / "SegmentationClass" / f"{number}.png")
    if tool == "labelme":
        (tmp_path / "class_names.txt").write_text("_background_\nroad\nlane\n")
    else:
        text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:250,50,83::\nlane:51,221,255::\n"
        (tmp_path / "labelmap.txt").write_text(text)
        lists = tmp_path / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "default.txt").write_text("".join(f"{number}\n" for number in range(8)))
    data = load_data(tmp_path, task="segmentation", log=lambda line: None)
    assert data.classes == ["_background_" if tool == "labelme" else "background", "road", "lane"]
    assert np.array_equal(data.train.target(0)["label"].numpy(), values)
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "nothing wrong was found" in capsys.readouterr().out


@pytest.mark.parametrize(("batch", "accumulate"), [(5, 4), (1, 1)])
def test_parts_of_one_picture_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: int, accumulate: int
) -> None:
    """A head that normalises over pooled pictures needs two at once."""
    for part, count in (("train", 5), ("val", 2)):
        for number in range(count):
            picture(tmp_path / part / "images" / f"{part}{number}.png", seed=number)
            (tmp_path / part / "masks").mkdir(exist_ok=True)
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[BOX[1] :, BOX[0] :] = 1
            Image.fromarray(mask).save(tmp_path / part / "masks" / f"{part}{number}.png")
    words = "basic model=mixernet_pico head=deeplabv3 task=segmentation model_args.output_stride=32 image_size=32 "
    words += f"label_smoothing=0 epochs=1 warmup_epochs=0 batch_size={batch} accumulate={accumulate} --device cpu"
    out = tmp_path / "run"
    assert main(["train", *words.split(), "--data", str(tmp_path), "--out", str(out)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "needs at least 2" in told
    assert f"a batch of {batch} in parts (accumulate={accumulate})" in told


def test_published_weights_answer_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights of 1,000 classes without names are ImageNet's; those of any other number have none."""
    photo = picture(tmp_path / "photo.jpg")
    for count, wanted in ((1000, "tabby, tabby cat"), (7, "class 3")):
        model = timm.create_model("casvit_xs", num_classes=count)
        with torch.no_grad():
            for head in model.get_classifier():  # also the one that learns from a teacher
                head.weight.zero_()
                head.bias.copy_(20.0 * (torch.arange(count) == (281 if count == 1000 else 3)))
        convert(model.state_dict(), tmp_path / f"{count}.safetensors")
        assert main(["predict", str(photo), "--model", str(tmp_path / f"{count}.safetensors")]) == 0
        assert wanted in capsys.readouterr().out.splitlines()[1]
