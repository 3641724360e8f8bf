#!/usr/bin/busybox sh
# The guest's first process: devices, kernel modules, a Soft-RoCE device rxe0 on
# a dummy network card, then the command that run.sh was given. What it prints
# last, "guest: exit status N", is the verdict.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C

finish() {
	echo "guest: exit status $1"
	/usr/bin/busybox sync
	/usr/bin/busybox poweroff -f
	# poweroff returns at once; a first process that ends is a panic.
	/usr/bin/busybox sleep 60
}

need() {
	"$@" || {
		echo "guest: failed with status $?: $*"
		finish 1
	}
}

busybox=/usr/bin/busybox
[ -x $busybox ] || busybox=/bin/busybox
need $busybox mkdir -p /proc /sys /dev /tmp /run /root /var/tmp /usr/local/bin
need $busybox mount -t proc proc /proc
need $busybox mount -t sysfs sysfs /sys
need $busybox mount -t devtmpfs devtmpfs /dev
need $busybox mkdir -p /dev/shm /dev/pts
need $busybox mount -t tmpfs tmpfs /dev/shm
need $busybox mount -t tmpfs tmpfs /tmp
need $busybox ln -sfn /proc/self/fd /dev/fd
need $busybox --install -s /usr/local/bin
export PATH=$PATH:/usr/local/bin
echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
echo '127.0.0.1 localhost rdma' >/etc/hosts
need hostname rdma
ulimit -l unlimited

while read -r module; do
	need insmod "$module"
done </modules.list
need ip link set lo up
# Loading dummy made dummy0.
need ip address add 192.0.2.1/24 dev dummy0
need ip link set dummy0 up
need rdma link add rxe0 type rxe netdev dummy0
need rdma link show rxe0/1
read -r uptime rest </proc/uptime
echo "guest: rxe0 is up, $uptime s after the kernel started"

sh /command
finish $?
