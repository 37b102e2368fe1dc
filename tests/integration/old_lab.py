"""The lab's schemas as its older DataJoint clients declared them: native types, no marker anywhere.

Names, tiers (in the names: ``#`` lookup, ``_`` imported) and types are theirs. They relied on the server's
default character set, which was latin1 then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datajoint as dj
import numpy as np
from datajoint import blob

SESSION = "`subject_id` int NOT NULL COMMENT 'institution 6 digit animal ID', `session` smallint NOT NULL"
KIND = "`session_epoch_type` varchar(200) NOT NULL COMMENT 'kind'"
EPOCH = f"{SESSION}, {KIND}, `session_epoch_number` int NOT NULL"
FOV = f"{SESSION}, `fov_num` int NOT NULL COMMENT 'field of view'"
PLANE = f"{FOV}, `plane_num` int NOT NULL, `channel_num` int NOT NULL"
ROI = f"{PLANE}, `roi_number` int NOT NULL COMMENT 'restarts for every session'"
EPOCH_ROI = f"{EPOCH}, {ROI.removeprefix(SESSION + ', ')}"

#: schema: table: columns, how many of them are the primary key, tables that it refers to.
TABLES: dict[str, dict[str, tuple[str, int, tuple[str, ...]]]] = {
    "lab": {
        "subject": ("`subject_id` int NOT NULL COMMENT 'institution 6 digit animal ID'", 1, ()),
        "#brain_area": (
            "`brain_area` varchar(32) NOT NULL DEFAULT 'ALM', "
            "`brain_area_description` varchar(1000) DEFAULT NULL",
            1,
            (),
        ),
    },
    "exp2": {
        "session": (f"{SESSION}, `session_date` date NOT NULL", 2, ("lab.subject",)),
        "#session_epoch_type": (
            f"{KIND}, `session_epoch_type_description` varchar(2000) NOT NULL",
            1,
            (),
        ),
        "_session_epoch": (
            f"{EPOCH}, `session_epoch_start_time` double NOT NULL COMMENT '(s) since the session began', "
            "`session_epoch_end_time` double NOT NULL, `flag_photostim_epoch` double NOT NULL",
            4,
            ("exp2.session", "exp2.#session_epoch_type"),
        ),
        "_session_epoch_somatotopy": (
            f"{EPOCH}, `sensory_stimulation_area` varchar(2000) NOT NULL",
            4,
            ("exp2._session_epoch",),
        ),
    },
    "img": {
        "_mesoscope": (SESSION, 2, ("exp2.session",)),
        "_f_o_v": (
            f"{FOV}, `fov_name` varchar(200) NOT NULL, `fov_x_size` double NOT NULL, "
            "`fov_y_size` double NOT NULL, `imaging_frame_rate` double NOT NULL",
            3,
            ("exp2.session",),
        ),
        "_f_o_v_epoch": (
            f"{EPOCH}, `imaging_frame_rate` double NOT NULL COMMENT '(Hz)', "
            "`imaging_frame_rate_plane` double DEFAULT NULL, "
            "`imaging_frame_rate_volume` double DEFAULT NULL, `zoom` double DEFAULT NULL, "
            "`imaging_fov_deg` blob, `imaging_fov_um` blob",
            4,
            ("exp2._session_epoch",),
        ),
        "_plane": (
            f"{PLANE}, `mean_img` longblob NOT NULL, `mean_img_enhanced` longblob NOT NULL",
            5,
            ("img._f_o_v",),
        ),
        "_r_o_i": (
            f"{ROI}, `roi_number_uid` int NOT NULL, `roi_centroid_x` double NOT NULL, "
            "`roi_centroid_y` double NOT NULL, `roi_radius` double NOT NULL, `roi_x_pix` longblob NOT NULL, "
            "`roi_y_pix` longblob NOT NULL, `roi_pixel_weight` longblob NOT NULL, `f_mean` double NOT NULL, "
            "`f_median` double NOT NULL",
            6,
            ("img._plane",),
        ),
        "_r_o_i_bad": (ROI, 6, ("img._r_o_i",)),
        "_r_o_i_brain_area": (
            f"{ROI}, `brain_area` varchar(32) NOT NULL",
            7,
            ("img._r_o_i", "lab.#brain_area"),
        ),
        "_r_o_idelta_f": (
            f"{EPOCH_ROI}, `dff_trace` longblob NOT NULL COMMENT 'dF/F for each frame'",
            8,
            ("exp2._session_epoch", "img._r_o_i"),
        ),
    },
    "stimanal": {
        "#mice_included": ("`subject_id` int NOT NULL", 1, ("lab.subject",)),
    },
}


@dataclass(frozen=True)
class Recorded:
    """One epoch: good ROIs × frames, in the order of their numbers, and frames per second."""

    F: np.ndarray[Any, Any]
    areas: tuple[str, ...]
    rate: float


class OldLab:
    """Declares and fills such schemas, in SQL.

    Parameters
    ----------
    instance : datajoint.Instance
        A user who may.
    schemas : dict
        Our name of a schema: its name on the server.
    """

    def __init__(self, instance: dj.Instance, schemas: dict[str, str]) -> None:
        self._query = instance.connection.query
        self.schemas = schemas

    def declare(self, options: str = "DEFAULT CHARSET=latin1") -> None:
        """Create everything; the options are those of the tables."""
        for schema, tables in TABLES.items():
            self._query(f"CREATE DATABASE `{self.schemas[schema]}`")
            for table, (columns, n_key, parents) in tables.items():
                key = [word for word in columns.split("`")[1::2] if word][:n_key]
                keys = [self._reference(parent) for parent in parents]
                clauses = ", ".join([columns, f"PRIMARY KEY ({', '.join(key)})", *keys])
                self._query(f"CREATE TABLE {self._name(schema, table)} ({clauses}) ENGINE=InnoDB {options}")

    def _name(self, schema: str, table: str) -> str:
        return f"`{self.schemas[schema]}`.`{table}`"

    def _reference(self, parent: str) -> str:
        schema, table = parent.split(".")
        columns, n_key, _ = TABLES[schema][table]
        key = ", ".join(columns.split("`")[1::2][:n_key])
        return f"FOREIGN KEY ({key}) REFERENCES {self._name(schema, table)} ({key}) ON UPDATE CASCADE"

    def insert(self, name: str, *rows: tuple[Any, ...]) -> None:
        """Put whole rows into ``schema.table``."""
        schema, table = name.split(".")
        for row in rows:
            places = ", ".join(["%s"] * len(row))
            self._query(f"INSERT INTO {self._name(schema, table)} VALUES ({places})", args=row)

    def statements(self) -> list[str]:
        """Give what the server says that the tables are."""
        return [
            self._query(f"SHOW CREATE TABLE {self._name(schema, table)}").fetchone()[1]
            for schema, tables in TABLES.items()
            for table in tables
        ]

    def fill(self, seed: int = 5) -> dict[tuple[Any, ...], Recorded]:
        """Record two sessions of an animal that is part of the study and one of an animal that is not.

        Returns
        -------
        dict
            What there is to compute: (subject, session, type, number) -> `Recorded`.
        """
        self.insert("lab.subject", (463189,), (463190,))
        self.insert("stimanal.#mice_included", (463189,))
        self.insert("lab.#brain_area", ("MOs", "secondary motor area"), ("SSp", None), ("VISp", "no ROI"))
        self.insert("exp2.#session_epoch_type", ("spont_only", "spontaneous"), ("behav_only", "behaviour"))
        rng = np.random.default_rng(seed)
        single = Writer(np.float32, (1, -1), mesoscope=True)
        double = Writer(np.float64, (-1, 1), mesoscope=False)
        found = dict(self._session(463189, 1, single, rng)) | dict(self._session(463189, 2, double, rng))
        list(self._session(463190, 1, single, rng))
        return found

    def _session(
        self, subject: int, number: int, writer: Writer, rng: np.random.Generator
    ) -> Iterator[tuple[tuple[Any, ...], Recorded]]:
        session = (subject, number)
        self.insert("exp2.session", (*session, "2019-05-07"))
        if writer.mesoscope:
            self.insert("img._mesoscope", session)
        self.insert("img._f_o_v", (*session, 1, "fov", 512.0, 512.0, 1.0))
        image = packed(np.zeros((8, 8)))
        self.insert("img._plane", (*session, 1, 1, 1, image, image))
        areas = ("MOs", "MOs", "SSp", "SSp", "MOs", "SSp", "MOs", "SSp")
        rois = [(*session, 1, 1, 1, roi) for roi in range(1, len(areas) + 2)]  # the last one is bad
        pixels = packed(np.arange(3.0).reshape(1, -1))
        for roi, area in zip(rois, (*areas, "MOs"), strict=True):
            self.insert("img._r_o_i", (*roi, roi[-1], 1.5, 2.5, 5.0, pixels, pixels, pixels, 100.0, 90.0))
            self.insert("img._r_o_i_brain_area", (*roi, area))
        self.insert("img._r_o_i_bad", rois[-1])
        for kind, rate in (("spont_only", 5.0), ("behav_only", 10.0)):
            epoch = (*session, kind, 1)
            self.insert("exp2._session_epoch", (*epoch, 0.0, 60.0, 0.0))
            self.insert("img._f_o_v_epoch", (*epoch, rate, rate, rate, 1.0, None, None))
            F = rng.normal(size=(len(rois), 300)).astype(writer.precision)
            for roi, trace in zip(rois, F, strict=True):
                self.insert("img._r_o_idelta_f", (*epoch, *roi[2:], packed(trace.reshape(writer.shape))))
            yield epoch, Recorded(F[:-1], areas, rate)


@dataclass(frozen=True)
class Writer:
    """How a client wrote traces, and with which microscope they were recorded."""

    precision: Any
    shape: tuple[int, int]
    mesoscope: bool


def packed(value: Any) -> bytes:
    """Serialise as older clients did."""
    stored: bytes = blob.pack(value, compress=True)
    return stored
