"""Media: our own copy of every output, under our own host and names. Repeatable at any point."""

import hashlib
import tempfile
from pathlib import Path

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files import File
from django.core.files.storage import default_storage

from generations.models import Generation, OutputAsset
from providers import jobs, media_copy, media_probe
from providers.models import UpstreamJob

MAX_VIDEO_BYTES = 512 * 1024 * 1024
MAX_IMAGE_BYTES = 32 * 1024 * 1024
# Three quarters of what each resolution has; providers' sizes differ a little, the next lower one has far less.
LEAST_PIXELS = {"480p": 300_000, "720p": 690_000, "1080p": 1_550_000}
DURATION_TOLERANCE_MS = 1000

Kind = OutputAsset.Kind


class StorageUnavailable(Exception):
    """Our storage did not take a file; the same file can be stored later."""


class UnusableOutput(Exception):
    """What the provider delivered is not the video that was asked for."""


def ingest(generation: Generation, job: UpstreamJob) -> list[OutputAsset]:
    """Copy the outputs of a succeeded job to our storage and return their rows, unsaved.

    Raises:
        DownloadError: an output could not be fetched.
        UnusableOutput: the file is no playable video, or not of the asked duration.
        StorageUnavailable: our storage did not take it all.
    """
    assert job.result is not None, f"{job} succeeded without a result"
    with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
        delivered = Path(folder) / "delivered.mp4"
        video = Path(folder) / "video.mp4"
        jobs.download(job, url=job.result["video_url"], destination=delivered, max_bytes=MAX_VIDEO_BYTES)
        has_to_mark = generation.input["watermark"] and not jobs.makes_watermarks(job)
        try:
            media_probe.probe(delivered)
            media_copy.write_clean(delivered, video, has_to_mark=has_to_mark)
            info = media_probe.probe(video)
            poster = Path(folder) / "poster.jpg"
            media_probe.write_poster(video, poster)
            last_frame = Path(folder) / "last.jpg"
            if generation.input["return_last_frame"]:
                media_probe.write_poster(video, last_frame, at="last")
        except media_probe.UnusableMedia as error:
            raise UnusableOutput(str(error)) from error
        except media_probe.LocalTrouble as error:
            raise StorageUnavailable(f"{error} while copying the video") from error
        if info.width * info.height < LEAST_PIXELS.get(generation.input["resolution"], 0):
            asked = generation.input["resolution"]
            raise UnusableOutput(f"The video has {info.width}×{info.height} pixels, too few for {asked}.")
        asked_ms = generation.input["duration"] * 1000
        if abs(info.duration_ms - asked_ms) > DURATION_TOLERANCE_MS:
            raise UnusableOutput(f"The video lasts {info.duration_ms} ms instead of {asked_ms} ms.")

        assets = [_store(generation, Kind.VIDEO, video), _store(generation, Kind.THUMBNAIL, poster)]
        assets[0].duration_ms, assets[0].width, assets[0].height = info.duration_ms, info.width, info.height
        if generation.input["return_last_frame"]:
            assets.append(_store(generation, Kind.LAST_FRAME, last_frame))
        return assets


def path_for(generation: Generation, kind: OutputAsset.Kind) -> str:
    """Return where a file of a generation is kept: the UTC day of its creation and its public id."""
    day = generation.created_at.strftime("%Y/%m/%d")
    return {
        Kind.VIDEO: f"videos/{day}/{generation.public_id}.mp4",
        Kind.THUMBNAIL: f"video-posters/{day}/{generation.public_id}.jpg",
        Kind.LAST_FRAME: f"video-posters/{day}/{generation.public_id}_last.jpg",
    }[kind]


def _store(generation: Generation, kind: OutputAsset.Kind, source: Path) -> OutputAsset:
    path = path_for(generation, kind)
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        size = source.stat().st_size
        try:
            stored = default_storage.save(path, File(stream))
            is_whole = stored == path and default_storage.size(path) == size
        except (OSError, BotoCoreError, ClientError, Boto3Error) as error:
            raise StorageUnavailable(f"{type(error).__name__} for {path}") from error
    # The storage may have taken another name or less than all: neither may ever be called completed.
    if not is_whole:
        raise StorageUnavailable(f"{path} was not stored whole under its own name.")
    return OutputAsset(generation=generation, kind=kind, path=path, size_bytes=size, sha256=digest)
