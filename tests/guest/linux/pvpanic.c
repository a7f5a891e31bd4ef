/* Writes "crashed" to the pvpanic port, as the kernel's driver does (docs/specs/pvpanic of QEMU).
 */
#include <stdio.h>
#include <sys/io.h>
#include <unistd.h>

int main(void)
{
	enum { PORT = 0x505, PANICKED = 1 };

	if (ioperm(PORT, 1, 1)) {
		perror("ioperm");
		return 1;
	}
	printf("pvpanic: features %#x\n", inb(PORT));
	fflush(stdout);
	outb(PANICKED, PORT);
	sleep(5);
	return 2;
}
