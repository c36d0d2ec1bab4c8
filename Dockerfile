# The image of every service in docker-compose.yml: hpo with its dependencies, as a user without rights.
FROM python:3.12-slim

# A worker's data set may come from Debian's archive (`apt-get download`), which needs apt's lists.
ARG UID=1000
RUN useradd --create-home --uid "$UID" hpo && install -d -o hpo -g hpo /data /runs
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY hpo ./hpo
COPY search_spaces ./search_spaces
COPY studies ./studies
# More for a cluster: --build-arg EXTRAS=s3,ray --build-arg PACKAGES=ray[default]==2.60.0
ARG EXTRAS=s3
ARG PACKAGES=
RUN pip install --no-cache-dir ".[$EXTRAS]" $PACKAGES

USER hpo
ENV HPO_DATA=/data HPO_ARTIFACTS=/runs/artifacts PYTHONUNBUFFERED=1
WORKDIR /runs
ENTRYPOINT ["hpo"]
CMD ["--help"]
