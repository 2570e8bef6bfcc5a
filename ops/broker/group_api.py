"""The APIs of consumer groups: membership, committed offsets, and what administrators ask of groups."""

from collections.abc import Iterable
from typing import Any

from kio.schema.errors import ErrorCode

from ops.broker.groups import Group, GroupRefused, GroupState, JoinRequest
from ops.broker.offsets import Committed, OffsetStore
from ops.broker.protocol import Fields, Request
from ops.broker.topics import Topics

_MAX_METADATA_CHARS = 4096
_MEMBER_ID_REQUIRED_SINCE, _BATCHES_LEAVE_SINCE = 4, 3


class GroupApi:
    """Answers over the groups; it is the coordinator of all of them."""

    def __init__(self, topics: Topics, offsets: OffsetStore) -> None:
        self._topics = topics
        self._offsets = offsets
        self._groups: dict[str, Group] = {}

    def close(self) -> None:
        """Stop all timers."""
        for group in self._groups.values():
            group.close()

    def forget_idle_groups(self) -> None:
        """Let go of groups without members; what they committed stays."""
        idle = [group for group in self._groups.values() if group.is_idle]
        for group in idle:
            del self._groups[group.id]

    def _group(self, group_id: str) -> Group:
        if not group_id:
            raise GroupRefused(ErrorCode.invalid_group_id)
        return self._groups.setdefault(group_id, Group(group_id))

    async def join_group(self, request: Request, client_host: str) -> Fields:
        """Join, or join again."""
        body = request.body
        session_timeout_s = body.session_timeout.total_seconds()
        rebalance_timeout = getattr(body, "rebalance_timeout", body.session_timeout)
        join = JoinRequest(
            member_id=body.member_id,
            instance_id=_instance_id(body),
            client_id=request.client_id,
            client_host=client_host,
            session_timeout_s=session_timeout_s,
            rebalance_timeout_s=max(rebalance_timeout.total_seconds(), 0.0),
            protocol_type=body.protocol_type,
            protocols=tuple((protocol.name, protocol.metadata) for protocol in body.protocols),
            id_required=request.version >= _MEMBER_ID_REQUIRED_SINCE,
        )
        try:
            joined = await self._group(body.group_id).join(join)
        except GroupRefused as error:
            return {"error_code": error.code, "generation_id": -1, "member_id": error.member_id}
        told = [{"member_id": m, "group_instance_id": i, "metadata": data} for m, i, data in joined.subscriptions]
        return {
            "generation_id": joined.generation,
            "protocol_name": joined.protocol,
            "leader": joined.leader_id,
            "member_id": joined.member_id,
            "members": told,
        }

    async def sync_group(self, request: Request, _client_host: str) -> Fields:
        """Get an assignment; the leader brings everybody's."""
        body = request.body
        plan = {given.member_id: given.assignment for given in body.assignments}
        try:
            group = self._group(body.group_id)
            return {"assignment": await group.sync(body.generation_id, body.member_id, _instance_id(body), plan)}
        except GroupRefused as error:
            return {"error_code": error.code}

    async def heartbeat(self, request: Request, _client_host: str) -> Fields:
        """Note a sign of life."""
        body = request.body
        try:
            self._group(body.group_id).heartbeat(body.generation_id, body.member_id, _instance_id(body))
        except GroupRefused as error:
            return {"error_code": error.code}
        return {}

    async def leave_group(self, request: Request, _client_host: str) -> Fields:
        """Leave; from version 3 on, several members at once."""
        body = request.body
        if request.version < _BATCHES_LEAVE_SINCE:
            return {"error_code": self._leave(body.group_id, body.member_id, None)}
        gone = [(m, self._leave(body.group_id, m.member_id, m.group_instance_id)) for m in body.members]
        told = [{"member_id": m.member_id, "group_instance_id": m.group_instance_id, "error_code": c} for m, c in gone]
        return {"members": told}

    def _leave(self, group_id: str, member_id: str, instance_id: str | None) -> ErrorCode:
        try:
            self._group(group_id).leave(member_id, instance_id)
        except GroupRefused as error:
            return error.code
        return ErrorCode.none

    async def offset_commit(self, request: Request, _client_host: str) -> Fields:
        """Commit, if this caller may."""
        body = request.body
        refused = self._commit_refused(body)
        answers: dict[str, list[Fields]] = {}
        accepted = []
        for topic in body.topics:
            for part in topic.partitions:
                code = refused or self._commit_error(topic.name, part)
                answers.setdefault(topic.name, []).append({"partition_index": part.partition_index, "error_code": code})
                if code == ErrorCode.none:
                    committed = Committed(part.committed_offset, part.committed_metadata or "")
                    accepted.append(((topic.name, part.partition_index), committed))
        if accepted:
            self._offsets.commit(body.group_id, accepted)
        return {"topics": [{"name": name, "partitions": parts} for name, parts in answers.items()]}

    def _commit_refused(self, body: Any) -> ErrorCode | None:
        generation = body.generation_id_or_member_epoch
        try:
            if body.group_id not in self._groups and generation >= 0:
                raise GroupRefused(ErrorCode.illegal_generation)
            self._group(body.group_id).check_commit(generation, body.member_id, _instance_id(body))
        except GroupRefused as error:
            return error.code
        return None

    def _commit_error(self, topic: str, part: Any) -> ErrorCode:
        if self._topics.log(topic, part.partition_index) is None:
            return ErrorCode.unknown_topic_or_partition
        if len(part.committed_metadata or "") > _MAX_METADATA_CHARS:
            return ErrorCode.offset_metadata_too_large
        return ErrorCode.none

    async def offset_fetch(self, request: Request, _client_host: str) -> Fields:
        """What the group has committed: for the partitions named, or for all."""
        committed = self._offsets.of(request.body.group_id)
        wanted: Iterable[tuple[str, int]] = committed
        if request.body.topics is not None:
            wanted = [(topic.name, index) for topic in request.body.topics for index in topic.partition_indexes]
        topics: dict[str, list[Fields]] = {}
        for name, index in wanted:
            offset, metadata = committed.get((name, index), (-1, ""))
            part = {"partition_index": index, "committed_offset": offset, "metadata": metadata}
            topics.setdefault(name, []).append(part)
        return {"topics": [{"name": name, "partitions": parts} for name, parts in topics.items()]}

    async def list_groups(self, _request: Request, _client_host: str) -> Fields:
        """Every group that has members or has committed something."""
        types = dict.fromkeys(self._offsets.groups(), "consumer")
        types |= {group.id: group.protocol_type for group in self._groups.values() if not group.is_idle}
        return {"groups": [{"group_id": name, "protocol_type": kind} for name, kind in types.items()]}

    async def describe_groups(self, request: Request, _client_host: str) -> Fields:
        """State and members; a group that nobody knows is Dead."""
        return {"groups": [self._described(name) for name in request.body.groups]}

    def _described(self, group_id: str) -> Fields:
        group = self._groups.get(group_id)
        if group is None or group.is_idle:
            known = group_id in self._offsets.groups()
            state, kind = (GroupState.EMPTY, "consumer") if known else ("Dead", "")
            return {"group_id": group_id, "group_state": state, "protocol_type": kind}
        members = [
            {
                "member_id": member.id,
                "group_instance_id": member.request.instance_id,
                "client_id": member.request.client_id,
                "client_host": member.request.client_host,
                "member_metadata": member.subscription(group.protocol),
                "member_assignment": member.assignment,
            }
            for member in group.members.values()
        ]
        return {
            "group_id": group_id,
            "group_state": group.state,
            "protocol_type": group.protocol_type,
            "protocol_data": group.protocol if group.state is GroupState.STABLE else "",
            "members": members,
        }

    async def delete_groups(self, request: Request, _client_host: str) -> Fields:
        """Forget groups that have no members, and what they committed."""
        return {"results": [{"group_id": g, "error_code": self._delete(g)} for g in request.body.groups_names]}

    def _delete(self, group_id: str) -> ErrorCode:
        group = self._groups.get(group_id)
        if group is not None and not group.is_idle:
            return ErrorCode.non_empty_group
        if group_id not in self._offsets.groups():
            return ErrorCode.group_id_not_found
        self._offsets.drop_group(group_id)
        return ErrorCode.none


def _instance_id(body: Any) -> str | None:
    return getattr(body, "group_instance_id", None)
