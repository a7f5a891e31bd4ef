#!/bin/sh
# The guest's side of tests/system/test_net.py: net.sh STEP...; fails with the first step that does.
#   dhcp               ask for an address        static=ADDRESS/BITS    take one
#   ping=ADDRESS       dns=NAME                  many=ADDRESS:PORT:N    udp=ADDRESS:PORT
#   bulk=ADDRESS:PORT  take all that is there (its digest is printed), send it to the next port
#   serve=PORT         echo for the other side, until it connects to the next port
#   carrier=0|1        wait for the link
fail() {
	echo "net.sh: $step: $*"
	exit 1
}

# udhcpc calls this script again.
case $1 in
deconfig | leasefail | nak) exit 0 ;;
bound | renew)
	[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
	ip addr add "$ip/$mask" dev "$interface"
	ip route add default via "$router"
	echo "nameserver $dns" >/etc/resolv.conf
	echo "net.sh: lease $ip/$mask $router $dns $hostname"
	exit 0
	;;
esac

ip link set lo up
ip link set eth0 up || fail "no eth0"
for step in "$@"; do
	value=${step#*=}
	# The last colon is before the port: addresses may have more.
	host=${value%:*} port=${value##*:}
	echo "net.sh: step $step"
	case $step in
	dhcp) udhcpc -i eth0 -n -q -t 10 -O mtu -s "$0" || fail "no lease" ;;
	static=*) ip addr add "$value" dev eth0 || fail ;;
	ping=*) ping -c 3 -s 56 "$value" && ping -c 2 -s 4000 "$value" || fail "no answer" ;;
	dns=*) nslookup "$value" || fail "no answer" ;;
	many=*) netcheck many "${host%:*}" "${host##*:}" "$port" || fail ;;
	udp=*) netcheck udp "$host" "$port" || fail ;;
	bulk=*)
		nc "$host" "$port" >/tmp/data || fail "the connection broke"
		echo "net.sh: digest $(sha256sum </tmp/data)"
		nc "$host" $((port + 1)) </tmp/data || fail "the connection back broke"
		;;
	serve=*)
		netcheck serve "$value" &
		# A global IPv6 address, when the network gives one.
		for i in $(seq 50); do
			ip -6 addr show dev eth0 | grep -q "inet6 fec0.*global" && break
			sleep 0.2
		done
		ping -c 1 fec0::2 >/dev/null 2>&1
		sleep 0.5
		echo "net.sh: serving $value"
		nc -l -p $((value + 1)) </dev/null || fail "the end did not come"
		kill $!
		;;
	carrier=*)
		for i in $(seq 300); do
			[ "$(cat /sys/class/net/eth0/carrier)" = "$value" ] && continue 2
			sleep 0.1
		done
		fail "it does not come"
		;;
	*) fail "no such step" ;;
	esac
done
