"""An S3 server on a free port of this host, for one test; ends with its stdin.

Prints its port, then obeys one command a line and answers each with `ok`:

    bucket NAME
    put BUCKET KEY FILE
"""

import logging
import sys

import boto3
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()
client = boto3.client(
    "s3",
    endpoint_url=f"http://127.0.0.1:{port}",
    region_name="us-east-1",
    aws_access_key_id="smelt",
    aws_secret_access_key="smelt-secret",
)
print(port, flush=True)
for line in sys.stdin:
    command, *arguments = line.split()
    if command == "bucket":
        client.create_bucket(Bucket=arguments[0])
    elif command == "put":
        bucket, key, path = arguments
        client.upload_file(path, bucket, key)
    else:
        raise SystemExit(f"unknown command {command}")
    print("ok", flush=True)
