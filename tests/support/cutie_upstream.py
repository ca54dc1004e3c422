"""rf-cutie's own evaluation: the loop of its eval_vos.py, which cannot be called as it insists on CUDA and Hydra.

Reader, resizing, core and saver are the package's; only the loop between them is written here.
"""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from vosarena.trackers.cutie_network import build_network, cutie_config


def upstream(
    root: Path, output: Path, weights: Path, model: str = "tiny", device: str = "cpu", **settings: Any
) -> None:
    """Track all videos of a folder in canonical layout; masks go to `output`/<video>/<frame>.png.

    The masks of the folder are prompts: objects that first appear there, as in YouTube-VOS (`use_all_masks`).
    """
    from cutie.inference.data.vos_test_dataset import VOSTestDataset
    from cutie.inference.inference_core import InferenceCore
    from cutie.inference.utils.args_utils import get_dataset_cfg
    from cutie.inference.utils.results_utils import ResultSaver

    config = cutie_config(model)
    config.dataset = "generic"
    config.image_directory, config.mask_directory = str(root / "JPEGImages"), str(root / "Annotations")
    config.use_all_masks = True
    long_term = settings.pop("long_term", None)
    if long_term:
        config.long_term.update(long_term)
    config.use_long_term = bool(long_term)
    for key, value in settings.items():
        config[key] = value
    data = get_dataset_cfg(config)
    network = build_network(config).to(device).eval()
    state = torch.load(weights, weights_only=True)
    network.load_weights({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    dataset = VOSTestDataset(
        data.image_directory, data.mask_directory, use_all_masks=data.use_all_masks, size=data.size
    )
    with torch.inference_mode():
        for reader in dataset.get_datasets():
            loader = DataLoader(reader, batch_size=None, shuffle=False)
            core = InferenceCore(network, cfg=config)
            saver = ResultSaver(
                str(output),
                reader.vid_name,
                dataset="generic",
                object_manager=core.object_manager,
                use_long_id=reader.use_long_id,
                palette=reader.get_palette(),
            )
            for index, item in enumerate(loader):
                labels = item.get("valid_labels")
                probability = core.step(
                    item["rgb"].to(device),
                    item["mask"].to(device) if "mask" in item else None,
                    labels.tolist() if labels is not None else None,
                    end=index == len(loader) - 1,
                )
                info = item["info"]
                saver.process(
                    probability,
                    info["frame"],
                    resize_needed=info["resize_needed"],
                    shape=info["shape"],
                    last_frame=index == len(loader) - 1,
                    path_to_image=info["path_to_image"],
                )
            saver.end()
