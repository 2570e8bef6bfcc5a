"""The APIs about the cluster itself: versions, metadata, coordinators, and the administration of topics."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kio.schema.errors import ErrorCode

from ops.broker.offsets import OffsetStore
from ops.broker.protocol import API_VERSIONS, PRODUCE, VERSIONS, Fields, Request
from ops.broker.topics import Topic, TopicRefused, Topics, valid_name

NODE_ID = 1
_TOPIC_RESOURCE, _BROKER_RESOURCE = 2, 4
_SET_ON_TOPIC, _STATIC_BROKER, _DEFAULT = 1, 4, 5  # Kafka's numbers for where a setting comes from
_SET, _DELETE = 0, 1  # Kafka's numbers for what is done to a setting


class ClusterApi:
    """Answers over the topics. `address` is where clients find this broker."""

    def __init__(self, topics: Topics, offsets: OffsetStore, address: tuple[str, int]) -> None:
        self._topics = topics
        self._offsets = offsets
        self._host, self._port = address

    async def api_versions(self, request: Request, _client_host: str) -> Fields:
        """What is spoken here. A version of the question that is not gets the oldest answer, with the list in it."""
        spoken = [{"api_key": key, "min_version": old, "max_version": new} for key, (old, new) in VERSIONS.items()]
        # librdkafka takes a broker whose Produce begins above 0 for one without compression; so does Kafka say 0.
        spoken[PRODUCE]["min_version"] = 0
        known = request.version <= VERSIONS[API_VERSIONS][1]
        return {"error_code": ErrorCode.none if known else ErrorCode.unsupported_version, "api_keys": spoken}

    async def metadata(self, request: Request, _client_host: str) -> Fields:
        """Topics and who leads them: always this broker. Asking creates no topic."""
        asked = request.body.topics
        everything = asked is None or (request.version == 0 and not asked)
        names = [topic.name for topic in (self._topics if everything else asked)]
        return {
            "brokers": [{"node_id": NODE_ID, "host": self._host, "port": self._port}],
            "cluster_id": self._topics.cluster_id,
            "controller_id": NODE_ID,
            "topics": [self._topic_metadata(name) for name in names],
        }

    def _topic_metadata(self, name: str) -> Fields:
        topic = self._topics.get(name)
        if topic is None:
            code = ErrorCode.unknown_topic_or_partition if valid_name(name) else ErrorCode.invalid_topic_exception
            return {"name": name, "error_code": code}
        here = {"leader_id": NODE_ID, "replica_nodes": (NODE_ID,), "isr_nodes": (NODE_ID,), "leader_epoch": -1}
        return {"name": name, "partitions": [{"partition_index": i, **here} for i in range(len(topic.logs))]}

    async def find_coordinator(self, request: Request, _client_host: str) -> Fields:
        """This broker coordinates every group; it knows no transactions."""
        if getattr(request.body, "key_type", 0) != 0:
            why = "transactions are not supported"
            return {"error_code": ErrorCode.invalid_request, "error_message": why, "node_id": -1, "port": -1}
        return {"node_id": NODE_ID, "host": self._host, "port": self._port}

    async def create_topics(self, request: Request, _client_host: str) -> Fields:
        """Add topics."""
        dry_run = request.body.validate_only
        return {"topics": [_told({"name": t.name}, partial(self._create, t, dry_run)) for t in request.body.topics]}

    def _create(self, wanted: Any, dry_run: bool) -> None:
        partitions, replicas = wanted.num_partitions, wanted.replication_factor
        if wanted.assignments:
            partitions, replicas = len(wanted.assignments), max(len(a.broker_ids) for a in wanted.assignments)
        if replicas not in (-1, 1):
            raise TopicRefused(ErrorCode.invalid_replication_factor, "there is one broker, so there is one replica")
        settings = {c.name: c.value for c in wanted.configs if c.value is not None}
        self._topics.create(wanted.name, 1 if partitions == -1 else partitions, settings, dry_run=dry_run)

    async def delete_topics(self, request: Request, _client_host: str) -> Fields:
        """Remove topics, their records and what groups committed for them."""
        return {"responses": [_told({"name": n}, partial(self._delete, n)) for n in request.body.topic_names]}

    def _delete(self, name: str) -> None:
        self._topics.delete(name)
        self._offsets.drop_topic(name)

    async def create_partitions(self, request: Request, _client_host: str) -> Fields:
        """Give topics more partitions."""
        dry_run = request.body.validate_only
        results = [
            _told({"name": t.name}, partial(self._topics.grow, t.name, t.count, dry_run=dry_run))
            for t in request.body.topics
        ]
        return {"results": results}

    async def delete_records(self, request: Request, _client_host: str) -> Fields:
        """Forget the oldest records of partitions."""
        topics = [
            {"name": topic.name, "partitions": [self._delete_records(topic.name, part) for part in topic.partitions]}
            for topic in request.body.topics
        ]
        return {"topics": topics}

    def _delete_records(self, topic: str, part: Any) -> Fields:
        place = {"partition_index": part.partition_index}
        try:
            return place | {"low_watermark": self._topics.delete_records(topic, part.partition_index, part.offset)}
        except TopicRefused as error:
            return place | {"low_watermark": -1, "error_code": error.code}

    async def describe_configs(self, request: Request, _client_host: str) -> Fields:
        """Settings of topics, and those of the broker that topics inherit."""
        return {"results": [self._described(resource) for resource in request.body.resources]}

    def _described(self, resource: Any) -> Fields:
        answer = _resource(resource)
        defaults = self._topics.defaults
        if resource.resource_type == _BROKER_RESOURCE:
            settings = {"message.max.bytes": defaults["max.message.bytes"], "auto.create.topics.enable": "false"}
            return answer | {"configs": _configs(settings, {}, _STATIC_BROKER, resource.configuration_keys)}
        topic = self._topics.get(resource.resource_name) if resource.resource_type == _TOPIC_RESOURCE else None
        if topic is None:
            return answer | {"error_code": ErrorCode.unknown_topic_or_partition, "error_message": "no such topic"}
        return answer | {"configs": _configs(defaults, topic.settings, _DEFAULT, resource.configuration_keys)}

    async def alter_configs(self, request: Request, _client_host: str) -> Fields:
        """Replace the settings of topics."""
        return self._altered(request.body, lambda _, resource: {c.name: c.value for c in resource.configs})

    async def incremental_alter_configs(self, request: Request, _client_host: str) -> Fields:
        """Change some settings of topics."""
        return self._altered(request.body, _changed)

    def _altered(self, body: Any, settings_of: Callable[[Topic, Any], Mapping[str, str | None]]) -> Fields:
        def alter(resource: Any) -> None:
            topic = self._topics.get(resource.resource_name) if resource.resource_type == _TOPIC_RESOURCE else None
            if topic is None:
                raise TopicRefused(ErrorCode.unknown_topic_or_partition, "only settings of topics can be changed")
            settings = {name: value for name, value in settings_of(topic, resource).items() if value is not None}
            self._topics.configure(topic.name, settings, dry_run=body.validate_only)

        return {"responses": [_told(_resource(r), partial(alter, r)) for r in body.resources]}


def _told(answer: Fields, act: Callable[[], None]) -> Fields:
    try:
        act()
    except TopicRefused as error:
        return {**answer, "error_code": error.code, "error_message": str(error)}
    return answer


def _resource(resource: Any) -> dict[str, Any]:
    return {"resource_type": resource.resource_type, "resource_name": resource.resource_name}


def _changed(topic: Topic, resource: Any) -> Mapping[str, str | None]:
    settings: dict[str, str | None] = dict(topic.settings)
    for config in resource.configs:
        if config.config_operation not in (_SET, _DELETE):
            raise TopicRefused(ErrorCode.invalid_config, "settings can be set and deleted, not appended to")
        settings[config.name] = config.value if config.config_operation == _SET else None
    return settings


def _configs(defaults: Mapping[str, str], set_: Mapping[str, str], source: int, asked: Any) -> list[Fields]:
    return [
        {
            "name": name,
            "value": set_.get(name, default),
            "config_source": _SET_ON_TOPIC if name in set_ else source,
            "read_only": source == _STATIC_BROKER,
        }
        for name, default in defaults.items()
        if asked is None or name in asked
    ]
