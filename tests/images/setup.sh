#!/bin/sh
# Configures the image, run inside it when the packages are installed. PASSWORD: root's.
# Boots are measured: whatever serves no test is switched off, and nothing is left for the first boot to do.
set -eu

echo ferry >/etc/hostname
printf '127.0.0.1 localhost ferry\n::1 localhost\n' >/etc/hosts
echo 'nameserver 10.0.2.3' >/etc/resolv.conf
echo 'LABEL=root / ext4 errors=remount-ro 0 0' >/etc/fstab
rm -f /etc/machine-id # read-only
od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >/etc/machine-id
# The cheapest hash: logging in is not what is tested.
echo "root:$PASSWORD" | chpasswd -c SHA512 -s 1000
depmod "$(ls /lib/modules)"

cat >/etc/systemd/network/wired.network <<'END'
[Match]
Type=ether
[Network]
DHCP=ipv4
IPv6AcceptRA=no
LinkLocalAddressing=no
[DHCPv4]
ClientIdentifier=mac
END
systemctl enable systemd-networkd.service
systemctl disable systemd-networkd-wait-online.service

# A login on the virtio console, if there is one. (systemd itself sees to the one on the kernel's console.)
echo 'SUBSYSTEM=="tty", KERNEL=="hvc0", TAG+="systemd", ENV{SYSTEMD_WANTS}+="serial-getty@hvc0.service"' \
	>/etc/udev/rules.d/90-hvc.rules

mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' >/etc/systemd/journald.conf.d/ferry.conf
printf 'PermitRootLogin prohibit-password\nHostKey /etc/ssh/ssh_host_ed25519_key\n' \
	>/etc/ssh/sshd_config.d/ferry.conf
rm -rf /etc/update-motd.d /etc/motd

systemctl disable getty@tty1.service e2scrub_reap.service
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
	dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
	sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service \
	systemd-pstore.service systemd-network-generator.service systemd-modules-load.service \
	kmod-static-nodes.service systemd-sysusers.service systemd-journal-flush.service \
	systemd-update-utmp.service systemd-update-utmp-runlevel.service
for module in configfs dm_mod drm efi_pstore fuse loop; do
	systemctl mask modprobe@$module.service
done

# Without the 64 virtual terminals, processors, work queues and the like, whose events nobody waits for.
mkdir -p /etc/systemd/system/systemd-udev-trigger.service.d
cat >/etc/systemd/system/systemd-udev-trigger.service.d/ferry.conf <<'END'
[Service]
ExecStart=
ExecStart=udevadm trigger --type=devices --action=add --prioritized-subsystem=block,net \
	--subsystem-nomatch=tty --subsystem-nomatch=vc --subsystem-nomatch=vtconsole --subsystem-nomatch=cpu \
	--subsystem-nomatch=workqueue --subsystem-nomatch=bdi --subsystem-nomatch=mem --subsystem-nomatch=memory
ExecStart=udevadm trigger --type=devices --action=add --subsystem-match=tty --sysname-match=ttyS0 \
	--sysname-match=hvc*
END
