#!/bin/sh
# Runs the steps of the Dockerfile by hand, where no container engine is: in a bare Debian root made by debootstrap.
#
#   sh deploy/bare_root.sh DIRECTORY     # as root; needs debootstrap, pip, and the mirrors of Debian and of PyPI
#
# What differs from the image: Debian's own Python 3.11 instead of python:3.11-slim, wheels fetched outside, and limits,
# secrets and capabilities are whatever this shell has. The root is read-only (a private mount) and the user is 10001.
set -eu
root=$1
port=${PORT:-18765}
here=$(cd "$(dirname "$0")/.." && pwd)

[ -e "$root/usr/bin/python3" ] || debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root"
mkdir -p "$root/wheels" "$root/srv/gateway"
python3 -m pip download -q --disable-pip-version-check --only-binary=:all: --python-version 3.11 --require-hashes \
    -r "$here/requirements.txt" -d "$root/wheels"
cp "$here/requirements.txt" "$root/requirements.txt"
[ -x "$root/opt/gateway/bin/python" ] || chroot "$root" python3 -m venv /opt/gateway
chroot "$root" /opt/gateway/bin/python -m pip install -q --no-index --find-links /wheels --no-compile --require-hashes -r /requirements.txt
cp -r "$here/LICENSE" "$here/run.py" "$here/config.toml" "$here/server" "$root/srv/gateway/"
chroot "$root" /opt/gateway/bin/python -m compileall -q /srv/gateway/run.py /srv/gateway/server

export root port here
exec unshare --mount sh -eu <<'INSIDE'
mount --bind "$root" "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
enter="chroot --userspec=10001:10001 $root env -i -C /srv/gateway PATH=/opt/gateway/bin:/usr/bin:/bin PORT=$port
    APP_ENV=production HOST=127.0.0.1 BYBIT_ENVIRONMENT=simulator GATEWAY_TOKENS=a-token-for-this-run-only-0123456789
    WORKERS=2 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1"
touch "$root/srv/gateway/written" 2>/dev/null && { echo "even root can write there"; exit 1; }
$enter python run.py &
gateway=$!
# The Dockerfile's own health check, word for word.
check=$(sed -n 's/^ *CMD \["python", "-c", "\(.*\)"\]$/\1/p' "$here/Dockerfile" | sed 's/\\"/"/g')
for _ in $(seq 60); do
    $enter python -c "$check" 2>/dev/null && break
    kill -0 "$gateway"
    sleep 0.5
done
$enter python -c "$check"
echo "healthy; the first process runs as user $(awk '/^Uid/ {print $2}' "/proc/$gateway/status")"
kill -TERM "$gateway"
code=0
wait "$gateway" || code=$?
echo "ended by SIGTERM with exit code $code"
exit "$code"
INSIDE
