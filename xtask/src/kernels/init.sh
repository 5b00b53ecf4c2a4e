#!/bin/busybox sh
# The only program of the guest: traces the demo target, and tells what came of it on the console.
/bin/busybox mkdir -p /proc /sys /dev /tmp /bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ip link set lo up
export PATH=/bin HOME=/tmp
echo
echo "@kernel $(uname -r)"
profilemate doctor 2>&1 | sed 's/^/@doctor /'
profilemate demo --python "@PYTHON@" --duration 20s --output /tmp/sessions >/tmp/stdout 2>/tmp/stderr
echo "@exit $?"
sed 's/^/@log /' /tmp/stderr
folder=$(tail -n 1 /tmp/stdout)
for table in "$folder"/*.csv; do
    echo "@rows $(basename "$table" .csv) $(($(wc -l <"$table") - 1))"
done
echo "@metadata $(tr -d '\n' <"$folder/metadata.json")"
profilemate replay "$folder" --output /tmp/replayed >/tmp/stdout 2>&1
again=$(tail -n 1 /tmp/stdout)
for table in "$folder"/*.csv; do
    cmp -s "$table" "$again/$(basename "$table")" || echo "@differs $(basename "$table")"
done
echo "@end"
poweroff -f
