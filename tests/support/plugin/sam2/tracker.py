"""Tracking by template matching: an example of a tracker that comes as a package."""

import cv2
import numpy as np


class Template:
    """Moves the first mask of each object to where its picture is found again near the last place.

    reach: how far an object may move from one frame to the next, in pixels.
    """

    packages = ("vosarena-template", "opencv-python-headless")

    def __init__(self, reach=8, device="cpu", precision="auto"):
        self.reach = reach

    def track(self, frames, prompts):
        objects = {}
        for index, frame in enumerate(frames):
            labels = np.zeros(frame.shape[:2], np.uint8)
            for number, (picture, mask, place) in objects.items():
                objects[number] = picture, mask, self._find(frame, picture, place)
                _paint(labels, mask, objects[number][2], number)
            if index in prompts:
                for number in np.unique(prompts[index][prompts[index] > 0]):
                    objects[number] = _cut(frame, prompts[index] == number)
                    _paint(labels, *objects[number][1:], number)
            yield labels

    def _find(self, frame, picture, place):
        height, width = picture.shape[:2]
        top, left = (max(0, coordinate - self.reach) for coordinate in place)
        window = frame[top : place[0] + height + self.reach, left : place[1] + width + self.reach]
        x, y = cv2.minMaxLoc(cv2.matchTemplate(window, picture, cv2.TM_SQDIFF))[2]
        return top + y, left + x


def _cut(frame, mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return frame[box].copy(), mask[box], (rows[0], columns[0])


def _paint(labels, mask, place, number):
    target = labels[place[0] : place[0] + mask.shape[0], place[1] : place[1] + mask.shape[1]]
    target[mask] = number
