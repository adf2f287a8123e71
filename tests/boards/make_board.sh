#!/usr/bin/env bash
# Build a virtual arm64 board: Debian 12 userland, Python 3.11, numpy, onnxruntime, an SSH server. Needs no root.
#   make_board.sh DIR AUTHORIZED_KEYS_FILE PYTHON      about 25 s; DIR then holds vmlinuz, initrd.gz, root.img
# PYTHON: any with pip. Host packages: apt, dpkg, cpio, gzip, e2fsprogs; a Debian 12 mirror in its sources. Boot: boot_board.sh.
set -euo pipefail
out=$(realpath -m "$1"); keys=$(realpath "$2"); python=$3
mkdir -p "$out"; cd "$out"
apt=$out/apt
mkdir -p "$apt"/etc/{apt.conf.d,preferences.d,trusted.gpg.d,sources.list.d} "$apt"/state/lists/partial "$apt"/cache/archives/partial
: > "$apt/status"
cp /etc/apt/sources.list.d/debian.sources "$apt/etc/sources.list.d/" 2>/dev/null || cp /etc/apt/sources.list "$apt/etc/"
cat > "$apt/apt.conf" <<EOF
APT::Architecture "arm64"; APT::Architectures {"arm64";};
Dir::Etc "$apt/etc"; Dir::State "$apt/state"; Dir::State::status "$apt/status"; Dir::Cache "$apt/cache"; Dir::Log "$apt";
APT::Install-Recommends "false"; Acquire::Languages "none";
EOF
export APT_CONFIG=$apt/apt.conf
apt-get update -qq
kernel=$(apt-cache depends linux-image-cloud-arm64 | awk '/Depends/{print $2}' | head -n 1)
apt-get install -y -qq --download-only python3.11 libstdc++6 coreutils dash bash sed grep busybox-static dropbear-bin \
  openssh-sftp-server openssh-client util-linux >/dev/null
mkdir -p kernel-deb kernel initrd/bin initrd/mod root
(cd kernel-deb && apt-get download -qq "$kernel" 2>/dev/null)
unset APT_CONFIG
for deb in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$deb" root; done
dpkg-deb -x kernel-deb/*.deb kernel
cp kernel/boot/vmlinuz-* vmlinuz
modules="virtio virtio_ring virtio_mmio virtio_blk failover net_failover virtio_net"
for module in $modules; do cp "$(find kernel/lib/modules -name "$module.ko")" initrd/mod/; done
site=root/usr/local/lib/python3.11/dist-packages
"$python" -m pip install --disable-pip-version-check -q --no-compile --target "$site" --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
  --platform manylinux2014_aarch64 --only-binary=:all: --python-version 3.11 onnxruntime numpy
# The same CPython minor version makes the same bytecode: compiled here, the first import on the board takes 7 s, not 19 s.
! command -v python3.11 >/dev/null || python3.11 -m compileall -q -s root root/usr/lib/python3.11 "$site" || true
ln -sf python3.11 root/usr/bin/python3
cp root/bin/busybox initrd/bin/
cat > initrd/init <<EOF
#!/bin/busybox sh
B=/bin/busybox
\$B mkdir -p /proc /sys /dev /new; \$B mount -t proc p /proc; \$B mount -t sysfs s /sys; \$B mount -t devtmpfs d /dev
for pass in 1 2 3; do for m in $modules; do \$B insmod /mod/\$m.ko 2>/dev/null; done; done   # the order differs between kernels
\$B mount -t ext4 /dev/vda /new || exec \$B sh
for d in dev proc sys; do \$B mkdir -p /new/\$d; \$B mount --move /\$d /new/\$d; done
exec \$B switch_root /new /sbin/board-init
EOF
chmod +x initrd/init
(cd initrd && find . | cpio -o -H newc -R 0:0 2>/dev/null | gzip -1) > initrd.gz
mkdir -p root/{proc,sys,dev,tmp,run,sbin,root/.ssh,etc/dropbear}
cp "$keys" root/root/.ssh/authorized_keys; chmod 700 root/root root/root/.ssh
echo 'root:x:0:0:root:/root:/bin/bash' > root/etc/passwd; echo 'root:x:0:' > root/etc/group
echo 'root:*:19000:0:99999:7:::' > root/etc/shadow; printf '/bin/bash\n/bin/sh\n' > root/etc/shells
cat > root/sbin/board-init <<'EOF'
#!/bin/sh
B=/bin/busybox; export PATH=/usr/sbin:/usr/bin:/sbin:/bin
$B chown -R 0:0 /root
$B mkdir -p /dev/pts; $B mount -t devpts d /dev/pts; $B mount -t tmpfs t /tmp; $B --install -s /usr/bin 2>/dev/null
$B ifconfig lo up; $B ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; $B route add default gw 10.0.2.2
dropbear -R -E -s -p 22
echo BOARD-READY $(cut -d' ' -f1 /proc/uptime)
while :; do $B sleep 1000; done
EOF
chmod +x root/sbin/board-init
rm -rf root.img; truncate -s "${SIZE:-700M}" root.img; /sbin/mke2fs -q -t ext4 -d root root.img
rm -rf root kernel kernel-deb initrd apt
echo "board in $out"
