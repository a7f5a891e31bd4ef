#include "devices/block/format.h"

#include <string.h>
#include <strings.h>

static const struct row {
	enum block_format format;
	const char *name, *remedy;
	unsigned offset, len;
	const char *magic;
} rows[] = {
	{BLOCK_FORMAT_QCOW2, "qcow2", NULL, 0, 4, "QFI\xfb"},
	{BLOCK_FORMAT_VMDK, "vmdk", NULL, 0, 4, "KDMV"},
	{BLOCK_FORMAT_VMDK, "vmdk", NULL, 0, 4, "COWD"},
	{BLOCK_FORMAT_VMDK, "vmdk", NULL, 0, 21, "# Disk DescriptorFile"},
	{BLOCK_FORMAT_VDI, "vdi", NULL, 64, 4, "\x7f\x10\xda\xbe"},
	{BLOCK_FORMAT_VHDX, "vhdx", NULL, 0, 8, "vhdxfile"},
	{BLOCK_FORMAT_VPC, "vpc", NULL, 0, 8, "conectix"},
	{BLOCK_FORMAT_RAW, "QED", "convert it with qemu-img convert", 0, 4, "QED\0"},
	{BLOCK_FORMAT_RAW, "Parallels", "convert it with qemu-img convert", 0, 16,
	 "WithoutFreeSpace"},
	{BLOCK_FORMAT_RAW, "gzip", "unpack it with gunzip", 0, 3, "\x1f\x8b\x08"},
	{BLOCK_FORMAT_RAW, "xz", "unpack it with unxz", 0, 6, "\xfd\x37zXZ\0"},
	{BLOCK_FORMAT_RAW, "zstd", "unpack it with unzstd", 0, 4, "\x28\xb5\x2f\xfd"},
	{BLOCK_FORMAT_RAW, "bzip2", "unpack it with bunzip2", 0, 4, "BZh9"},
};

struct format_found format_of(const void *head, size_t len)
{
	for (const struct row *r = rows; r < rows + sizeof(rows) / sizeof(rows[0]); r++)
		if (r->offset + r->len <= len &&
		    !memcmp((const char *)head + r->offset, r->magic, r->len))
			return (struct format_found){r->format, r->name, r->remedy};
	return (struct format_found){.format = BLOCK_FORMAT_RAW};
}

enum block_format format_of_name(const char *path)
{
	static const struct {
		const char *end;
		enum block_format format;
	} ends[] = {{"qcow2", BLOCK_FORMAT_QCOW2}, {"vmdk", BLOCK_FORMAT_VMDK},
		    {"vdi", BLOCK_FORMAT_VDI},	   {"vhdx", BLOCK_FORMAT_VHDX},
		    {"vhd", BLOCK_FORMAT_VPC},	   {"vpc", BLOCK_FORMAT_VPC}};
	const char *dot = strrchr(path, '.');

	for (unsigned i = 0; dot && i < sizeof(ends) / sizeof(ends[0]); i++)
		if (!strcasecmp(dot + 1, ends[i].end))
			return ends[i].format;
	return BLOCK_FORMAT_RAW;
}

const char *format_name(enum block_format format)
{
	static const char *const names[] = {
		[BLOCK_FORMAT_AUTO] = "auto",	[BLOCK_FORMAT_RAW] = "raw",
		[BLOCK_FORMAT_QCOW2] = "qcow2", [BLOCK_FORMAT_VMDK] = "vmdk",
		[BLOCK_FORMAT_VDI] = "vdi",	[BLOCK_FORMAT_VHDX] = "vhdx",
		[BLOCK_FORMAT_VPC] = "vpc"};

	return names[format];
}
