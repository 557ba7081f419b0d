#!/usr/bin/env bash
# Fetches Apache Kafka's jars (about 43 MB) from Maven Central, for the broker that the tests start.
# Idempotent: does nothing when they are there.
#
# SMELT_TEST_CACHE (default ~/.cache/smelt-test) holds them, in kafka-VERSION/.
set -euo pipefail

version=4.1.1
cache="${SMELT_TEST_CACHE:-$HOME/.cache/smelt-test}"
jars="$cache/kafka-$version"

[ -d "$jars" ] && exit 0
command -v mvn >/dev/null || { echo "kafka-fetch: Maven is missing: apt-get install maven" >&2; exit 1; }
echo "kafka-fetch: fetching Apache Kafka $version into $jars" >&2

mkdir -p "$cache"
work="$(mktemp -d "$cache/kafka-fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cat > "$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>smelt</groupId>
  <artifactId>test-broker</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
mvn --quiet --batch-mode --file "$work/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DoutputDirectory="$work/jars" -DincludeScope=runtime
ls "$work/jars"/kafka_2.13-"$version".jar >/dev/null
# Last and at once, so that an interrupted download is not taken for a whole one.
mv -T "$work/jars" "$jars"
