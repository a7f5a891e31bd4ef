/*
 * Offsets in a bzImage and in boot_params, which shares them (Documentation/x86/boot.rst, "The
 * Real-Mode Kernel Header"; Documentation/x86/zero-page.rst).
 */
#ifndef VMM_BOOT_BZIMAGE_H
#define VMM_BOOT_BZIMAGE_H

enum {
	BP_RSDP = 0x070,
	BP_E820_COUNT = 0x1e8,
	HDR_START = 0x1f1,
	HDR_SETUP_SECTS = 0x1f1,
	HDR_VID_MODE = 0x1fa,
	HDR_BOOT_FLAG = 0x1fe, /* aa55h */
	HDR_JUMP = 0x201,      /* the header ends at 202h + this */
	HDR_MAGIC = 0x202,     /* "HdrS" */
	HDR_VERSION = 0x206,
	HDR_KERNEL_VERSION = 0x20e,
	HDR_LOADER = 0x210,
	HDR_LOADFLAGS = 0x211,
	HDR_RAMDISK = 0x218,
	HDR_RAMDISK_SIZE = 0x21c,
	HDR_CMDLINE = 0x228,
	HDR_INITRD_MAX = 0x22c, /* the last byte that an initrd may occupy */
	HDR_ALIGNMENT = 0x230,
	HDR_RELOCATABLE = 0x234,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_PAYLOAD = 0x248,
	HDR_PAYLOAD_SIZE = 0x24c,
	HDR_SETUP_DATA = 0x250,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
	HDR_MIN_END = 0x264, /* of protocol 2.10, the oldest that is taken */
	HDR_MAX_END = 0x290,
	BP_E820 = 0x2d0,
	BP_E820_MAX = 128,
	BP_SIZE = 4096,
};

enum { LOADED_HIGH = 1, XLF_KERNEL_64 = 1 };

#endif
