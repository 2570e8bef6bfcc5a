"""Requests that aiokafka does not know, in its own words: what a client may do, and how many bytes a topic takes."""

from collections.abc import Sequence

from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Int64, Schema, String

_TEXT = String("utf-8")


class _MetadataResponse_v8(Response):  # type: ignore[misc]  # noqa: N801 — as aiokafka names them
    API_KEY = MetadataRequest.API_KEY
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT))),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("name", _TEXT),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("authorized_operations", Int32),
    )


class _MetadataRequest_v8(RequestStruct):  # type: ignore[misc]  # noqa: N801
    API_KEY = MetadataRequest.API_KEY
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse_v8
    SCHEMA = Schema(
        ("topics", Array(_TEXT)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class TopicsRequest(Request[_MetadataRequest_v8]):  # type: ignore[misc]
    """Topics and their partitions, and what may be done with each and with the cluster. None: all that may be seen."""

    API_KEY = MetadataRequest.API_KEY

    def __init__(self, topics: Sequence[str] | None = None) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest_v8]) -> _MetadataRequest_v8:
        """The request in the one version that is spoken here."""
        return request_struct_class(self._topics, False, True, True)


class _DescribeGroupsResponse_v3(Response):  # type: ignore[misc]  # noqa: N801
    API_KEY = DescribeGroupsRequest.API_KEY
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", _TEXT),
                ("state", _TEXT),
                ("protocol_type", _TEXT),
                ("protocol", _TEXT),
                (
                    "members",
                    Array(
                        ("member_id", _TEXT),
                        ("client_id", _TEXT),
                        ("client_host", _TEXT),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _DescribeGroupsRequest_v3(RequestStruct):  # type: ignore[misc]  # noqa: N801
    API_KEY = DescribeGroupsRequest.API_KEY
    API_VERSION = 3
    RESPONSE_TYPE = _DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(_TEXT)), ("include_authorized_operations", Boolean))


class GroupRightsRequest(Request[_DescribeGroupsRequest_v3]):  # type: ignore[misc]
    """A group, and what may be done with it. aiokafka asks for the latter, and does not read the answer."""

    API_KEY = DescribeGroupsRequest.API_KEY

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_DescribeGroupsRequest_v3]) -> _DescribeGroupsRequest_v3:
        """The request in the one version that is spoken here."""
        return request_struct_class([self._group], True)


class _LogDirsResponse_v1(Response):  # type: ignore[misc]  # noqa: N801
    API_KEY = 35
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            Array(
                ("error_code", Int16),
                ("log_dir", _TEXT),
                (
                    "topics",
                    Array(
                        ("name", _TEXT),
                        (
                            "partitions",
                            Array(("partition", Int32), ("size", Int64), ("offset_lag", Int64), ("is_future", Boolean)),
                        ),
                    ),
                ),
            ),
        ),
    )


class _LogDirsRequest_v1(RequestStruct):  # type: ignore[misc]  # noqa: N801
    API_KEY = 35
    API_VERSION = 1
    RESPONSE_TYPE = _LogDirsResponse_v1
    SCHEMA = Schema(("topics", Array(("topic", _TEXT), ("partitions", Array(Int32)))))


class LogDirsRequest(Request[_LogDirsRequest_v1]):  # type: ignore[misc]
    """How many bytes each partition that a broker has takes there."""

    API_KEY = 35

    def build(self, request_struct_class: type[_LogDirsRequest_v1]) -> _LogDirsRequest_v1:
        """The request in the one version that is spoken here."""
        return request_struct_class(None)
