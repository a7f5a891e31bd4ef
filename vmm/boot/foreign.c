#include <string.h>

#include "vmm/boot/loader.h"

/* Magic numbers of what people give by mistake. */
static const struct {
	size_t off, len;
	const char *magic, *text;
} kinds[] = {
	{56, 4, "ARMd", "is an arm64 Image, this machine is x86-64"},
	{56, 4, "RSC\5", "is a riscv64 Image, this machine is x86-64"},
	{56, 4, "\xcd\x23\x82\x81", "is a loongarch64 Image, this machine is x86-64"},
	{0x24, 4, "\x18\x28\x6f\x01", "is an arm zImage, this machine is x86-64"},
	{4, 4, "zimg", "is an EFI zboot image of another architecture, this machine is x86-64"},
	{0, 4, "\x27\x05\x19\x56", "is a U-Boot uImage, this machine is x86-64"},
	{0, 4, "\xd0\x0d\xfe\xed", "is a device tree, not a kernel"},
	{0, 4, "QFI\xfb", "is a qcow2 disk image, not a kernel"},
	{0, 5, "07070", "is a cpio archive, not a kernel: give it with --initrd"},
	{0x8001, 5, "CD001", "is a CD image, not a kernel"},
	{0, 2, "MZ", "is an EFI program, not a kernel"},
	{510, 2, "\x55\xaa", "is a boot sector or a disk image, not a kernel"},
};

const char *foreign_kind(struct blob file)
{
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (file.len >= kinds[i].off + kinds[i].len &&
		    !memcmp(file.data + kinds[i].off, kinds[i].magic, kinds[i].len))
			return kinds[i].text;
	return "is no kernel that ferry knows (bzImage, multiboot, ELF with a PVH note, vmlinux)";
}
