"""Files in S3: neither the server nor the way to it is trusted, nor that it answers."""
