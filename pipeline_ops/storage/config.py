"""StorageConfig: the `storage` section of a job file."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline_ops.schema.errors import secret_error

READ_AHEAD_BYTES = 8 * 2**20  # of a sequential read from an object store


class StorageConfig(BaseModel):
    """How object storage is reached. Credentials come from the usual AWS chain only, never from the job file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint_url: str | None = Field(default=None, description="S3 endpoint, for stores that are not AWS")
    region: str | None = Field(default=None, description="S3 region; default: the AWS chain's")
    anonymous: bool = Field(default=False, description="read public buckets without credentials")
    path_style: bool = Field(default=False, description="address buckets as path, not as host name")
    cache_folder: str = Field(default="~/.cache/label-corpus", description="where each node keeps models from object storage")
    checksums: bool = Field(default=True, description="false for S3-compatible stores that refuse the newer checksum headers")

    @field_validator("endpoint_url")
    @classmethod
    def _no_secrets(cls, url: str | None) -> str | None:
        if url is not None and "@" in url:
            raise secret_error("credentials do not belong into the job file; use the AWS chain (environment, profile, role)")
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"give it with http:// or https://, such as https://{url.split('://')[-1]}")
        return url
