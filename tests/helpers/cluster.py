"""A real Ray cluster of several small nodes on this machine, and what its workers say about themselves."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from hpo.store.database import schema
from hpo.store.database.connect import Store

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}


@contextmanager
def ray_cluster(nodes: int = 3) -> Iterator[Any]:
    """Start a cluster; yields its `Cluster`, whose address RAY_ADDRESS names. This process does not join it."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
    cluster: Any = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**NODE)
        yield cluster
    finally:
        cluster.shutdown()


def until(condition: Callable[[], object], seconds: float = 300) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def workers_of(store: Store) -> list[dict[str, Any]]:
    """Return what the workers of a store say about themselves."""
    with store.read() as connection:
        texts = connection.execute(sa.select(schema.hpo_workers.c.state_json)).scalars().all()
    return [json.loads(text) for text in texts]


@contextmanager
def moto_bucket(name: str) -> Iterator[dict[str, str]]:
    """Serve S3 with an empty bucket; yields the variables by which processes reach it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    ).create_bucket(Bucket=name)
    try:
        yield variables
    finally:
        server.stop()
