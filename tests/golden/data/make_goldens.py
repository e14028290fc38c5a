#!/usr/bin/env python3
"""Writes the files beside it: what numpy and h5py write, for the readers of data/ (numpy 1.24, h5py 3.7).

Row i, column j of every array of embeddings is i + j / 16, which all three types hold exactly. Visual arrays are
6 wide, audio arrays 4.
"""

import io
import pathlib
import warnings
import zipfile

import h5py
import numpy as np

HERE = pathlib.Path(__file__).parent


def values(rows, columns, dtype=np.float32, first=0):
    return (np.arange(first, first + rows)[:, None] + np.arange(columns)[None, :] / 16).astype(dtype)


def npy_bytes(array, version):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def zip_of(name, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(HERE / name, "w", compression) as archive:
        for key, data in entries:
            info = zipfile.ZipInfo(key, (1980, 1, 1, 0, 0, 0))
            info.compress_type = compression
            archive.writestr(info, data)


def arrays():
    good = values(7, 6)
    np.savez(HERE / "stored_f32.npz", embeddings=good)
    np.savez_compressed(HERE / "deflated_f32.npz", embeddings=good)
    np.savez(HERE / "stored_f16.npz", embeddings=good.astype(np.float16))
    np.savez_compressed(HERE / "deflated_f64.npz", embeddings=good.astype(np.float64))
    np.savez(HERE / "big_endian.npz", embeddings=good.astype(">f4"))
    np.savez(HERE / "fortran.npz", embeddings=np.asfortranarray(good.astype(np.float64)))
    for version in ((1, 0), (2, 0), (3, 0)):
        zip_of(f"header_{version[0]}.npz", [("embeddings.npy", npy_bytes(good, version))])
    # What the extractors put beside the embeddings; the pickle must never be looked at.
    np.savez_compressed(
        HERE / "more_keys.npz",
        paths=np.array(["a/1.png", "b/é.png"]),
        objects=np.array([{"x": 1}, None], dtype=object),
        fps=np.float64(25.0),
        frame_labels=np.array([0, 0, 1, 1, 1, 0, 0], np.int32),
        embeddings=good,
    )
    np.savez(HERE / "empty.npz", embeddings=np.zeros((0, 6), np.float32))
    np.savez(HERE / "one_dimension.npz", embeddings=good[0])
    np.savez(HERE / "three_dimensions.npz", embeddings=good[None])
    np.savez(HERE / "integers.npz", embeddings=good.astype(np.int32))
    np.savez(HERE / "complex.npz", embeddings=good.astype(np.complex64))
    np.savez(HERE / "objects.npz", embeddings=np.array([[1, "x"]], dtype=object))
    np.savez(HERE / "structured.npz", embeddings=np.zeros(3, dtype=[("a", "<f4"), ("b", "<i4")]))
    np.savez(HERE / "another_key.npz", features=good)
    zip_of("bzip2.npz", [("embeddings.npy", npy_bytes(good, (1, 0)))], zipfile.ZIP_BZIP2)
    # Readers differ in which of the two they take.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zip_of("twice.npz", [("embeddings.npy", npy_bytes(good + n, (1, 0))) for n in (0, 1)])
    # Ten megabytes of zeros in ten kilobytes: honest, and as far as deflate goes.
    np.savez_compressed(HERE / "zeros.npz", embeddings=np.zeros((2500, 1000), np.float32))


def packed(name, **frames_options):
    """A packed dataset of two videos as another program might write it; returns the open file."""
    file = h5py.File(HERE / name, "w", libver="latest")
    file.attrs["format"] = "voca-features"
    file.attrs["version"] = 1
    file.attrs["visual_dim"] = 6
    file.attrs["audio_dim"] = 4
    file.attrs["dtype"] = "float32"
    if frames_options is not None and frames_options.get("skip") is None:
        file.create_dataset("visual/frames", data=values(7, 6), **frames_options)
        file.create_dataset("audio/frames", data=values(8, 4), **frames_options)
    file["visual/offsets"] = np.array([0, 3, 7], np.int64)
    file["audio/offsets"] = np.array([0, 4, 8], np.int64)
    file["labels"] = np.array([1, 0], np.uint8)
    file["split"] = np.array([0, 2], np.uint8)
    file["ids"] = np.array(["real/id00001_é", "fake/id00002_b"], dtype=h5py.string_dtype())
    return file


def datasets():
    packed("contiguous.h5").close()
    packed("chunked.h5", chunks=(2, 2), compression="gzip", shuffle=True).close()

    # A filter that h5py brings along and the HDF5 library lacks.
    packed("lzf.h5", chunks=(2, 2), compression="lzf").close()

    file = packed("external_link.h5", skip=True)
    file["visual/frames"] = h5py.ExternalLink("contiguous.h5", "/visual/frames")
    file["audio/frames"] = values(8, 4)
    file.close()

    file = packed("soft_link.h5", skip=True)
    file["frames"] = values(7, 6)
    file["visual/frames"] = h5py.SoftLink("/frames")
    file["audio/frames"] = values(8, 4)
    file.close()

    file = packed("virtual.h5", skip=True)
    layout = h5py.VirtualLayout(shape=(7, 6), dtype="<f4")
    layout[:] = h5py.VirtualSource("contiguous.h5", "visual/frames", shape=(7, 6))
    file.create_virtual_dataset("visual/frames", layout)
    file["audio/frames"] = values(8, 4)
    file.close()

    file = packed("external_storage.h5", skip=True)
    file.create_dataset("visual/frames", shape=(7, 6), dtype="<f4", external=[("outside.raw", 0, 7 * 6 * 4)])
    file["audio/frames"] = values(8, 4)
    file.close()

    file = packed("never_written.h5", skip=True)
    file.create_dataset("visual/frames", shape=(7, 6), dtype="<f4", chunks=(2, 2))
    file["audio/frames"] = values(8, 4)
    file.close()

    with h5py.File(HERE / "not_ours.h5", "w", libver="latest") as other:
        other["x"] = np.zeros(3)


if __name__ == "__main__":
    arrays()
    datasets()
