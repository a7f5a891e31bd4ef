#!/bin/sh
# Waits for the power button, as the acpid of a distribution does.
mkdir -p /etc/acpi/PWRF
printf '#!/bin/sh\necho ferry: the button was pressed\npoweroff -f\n' >/etc/acpi/PWRF/00000080
chmod 755 /etc/acpi/PWRF/00000080
acpid -d -f &
n=0
until ls -l /proc/$!/fd | grep -q /dev/input || [ $((n += 1)) -gt 600 ]; do sleep 0.1; done
echo "ferry: waiting for the button"
sleep 1000
