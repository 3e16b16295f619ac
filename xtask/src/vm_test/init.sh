#!/bin/busybox sh
# The first process of the test machine, twice: in the initramfs, then in a copy of it on a tmpfs.
set -u
/bin/busybox --install -s /bin 2>/dev/null

if [ ! -e /copied ]; then
    mount -t tmpfs -o size=1500m,mode=755 new /new
    mkdir /new/dev /new/proc /new/sys /new/tmp
    for entry in /*; do
        case $entry in
            /dev | /new | /proc | /sys | /tmp) ;;
            *) cp -a $entry /new/ ;;
        esac
    done
    touch /new/copied
    rm -rf /tests
    mount -t devtmpfs dev /new/dev
    exec switch_root /new /init
fi

chmod 1777 /tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
# As systemd leaves it.
mount --make-rshared /
for module in /modules/*; do
    insmod $module || echo "insmod $module failed"
done
if [ -e /with-disk ]; then
    truncate -s 734003200 /disk
    mkfs.ext4 -q -F /disk && mount -t ext4 -o loop /disk /tmp && chmod 1777 /tmp
fi
ip link set lo up
hostname vm
export PATH=/usr/sbin:/usr/bin HOME=/root BOXSHIP_IMAGES=/images
ulimit -n 20000
echo "VM-BOOT $(uname -r) $(cut -d' ' -f1 /proc/uptime) s"

for program in /tests/*; do
    name=${program##*/}
    echo "running $name"
    # What tests and their children complain is shown only when it may be the reason.
    timeout -s KILL $(cat /limit) $program $(cat /filters) 2>/tmp/stderr
    code=$?
    [ $code = 0 ] || tail -c 6000 /tmp/stderr
    # What hangs is the test after the last one that was told.
    if [ $code = 137 ]; then
        echo "$name was killed after $(cat /limit) s; processes:"
        ps -o pid,ppid,stat,args | grep -v ' \[.*\]$'
    fi
    echo "VM-EXIT $name $code ($(cut -d' ' -f1 /proc/uptime) s)"
done
echo "VM-TIME $(cut -d' ' -f1 /proc/uptime) s"
echo VM-DONE
poweroff -f
