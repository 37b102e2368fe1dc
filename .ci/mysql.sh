#!/usr/bin/env bash
# A real MySQL server for the tests: Debian's newest mysqld in a container, on a loopback port of its own.
#
#   .ci/mysql.sh start   make the image if there is none, start the server, print host:port:user:password
#   .ci/mysql.sh stop    remove the container; the image stays
#   .ci/mysql.sh image   make the image only (about a minute, needs root)
#
# start is idempotent, and says on its error stream whether it `started` the server or found it `running`.
# The line that it prints is also kept in .cache/mysql/connection. Tests prefer WORKFLOW_TEST_MYSQL, of the
# same form, if it is set: any MySQL server will do whose user may create and drop schemas and users.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$repository/.cache/mysql
image=mysql-sid
container=workflow-mysql-$(printf '%s' "$repository" | cksum | cut -d ' ' -f 1)

fail() {
  echo "mysql.sh: $*" >&2
  exit 1
}

# Without a registry there is no image to pull: install the packages into a directory and import that.
make_image() {
  docker image inspect "$image" >/dev/null 2>&1 && return
  [[ $EUID -eq 0 ]] || fail "the image $image is missing and making it needs root: run 'sudo .ci/mysql.sh image' once"
  command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
  local root log
  root=$(mktemp -d /var/tmp/mysql-sid.XXXXXX)
  # shellcheck disable=SC2064  # the directory of now
  trap "rm -rf '$root' '$root.log'" EXIT
  log=$root.log
  chmod 755 "$root"
  debootstrap --variant=minbase --include=mysql-server-core,ca-certificates sid "$root" >"$log" 2>&1 ||
    fail "debootstrap failed: $(tail -n 3 "$log" | tr '\n' ' ')"
  # The server package proper, which we do without, would create the user and the directories. An initialised
  # data directory in the image makes a start take seconds.
  chroot "$root" useradd --system --user-group --no-create-home --home-dir /var/lib/mysql mysql
  chroot "$root" install -d -o mysql -g mysql -m 0750 /var/lib/mysql /var/lib/mysql-files
  chroot "$root" install -d -o mysql -g mysql -m 0755 /run/mysqld
  chroot "$root" mysqld --no-defaults --initialize-insecure --user=mysql --datadir=/var/lib/mysql >"$log" 2>&1 ||
    fail "mysqld --initialize-insecure failed: $(tail -n 3 "$log" | tr '\n' ' ')"
  tar -C "$root" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' -c . |
    docker import --change 'USER mysql' - "$image" >/dev/null
}

is_running() {
  [[ $(docker inspect --format '{{.State.Running}}' "$container" 2>/dev/null) == true ]]
}

start() {
  if is_running && [[ -s $folder/connection ]]; then
    cat "$folder/connection"
    echo running >&2
    return
  fi
  make_image
  remove
  local password port deadline
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  # Readable for the container's user, but in a directory that only we can enter.
  cat >"$folder/init.sql" <<SQL
CREATE USER 'tester'@'%' IDENTIFIED BY '$password';
GRANT ALL ON *.* TO 'tester'@'%' WITH GRANT OPTION;
SQL
  chmod 644 "$folder/init.sql"
  docker run --detach --init --name "$container" --publish 127.0.0.1::3306 --ulimit nofile=20000:20000 \
    --volume "$folder/init.sql:/init.sql:ro" "$image" \
    mysqld --no-defaults --init-file=/init.sql --mysqlx=OFF --skip-log-bin >/dev/null
  deadline=$((SECONDS + 60))
  # This line of its log comes after the init file has run.
  until docker logs "$container" 2>&1 | grep -q 'ready for connections'; do
    is_running || fail "mysqld ended: $(docker logs --tail 3 "$container" 2>&1 | tr '\n' ' ')"
    ((SECONDS < deadline)) || fail "mysqld was not ready after 60 s: see 'docker logs $container'"
    sleep 0.2
  done
  port=$(docker port "$container" 3306/tcp | head -n 1 | sed 's/.*://')
  (umask 077 && printf '127.0.0.1:%s:tester:%s\n' "$port" "$password" >"$folder/connection")
  cat "$folder/connection"
  echo started >&2
}

remove() {
  rm -f "$folder/connection"
  docker rm --force --volumes "$container" >/dev/null 2>&1 || true
}

command -v docker >/dev/null || fail "no docker command: install docker.io, or set WORKFLOW_TEST_MYSQL"
docker version >/dev/null 2>&1 || fail "no container engine answers: start dockerd, or set WORKFLOW_TEST_MYSQL"
mkdir -p "$folder"
chmod 700 "$folder"
exec 9>"$folder/lock"
flock 9 # two test runs at once share one server

case ${1:-start} in
  start) start ;;
  stop) remove ;;
  image) make_image ;;
  *) fail "unknown verb '$1': use start, stop or image" ;;
esac
