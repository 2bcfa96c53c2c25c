/*
 * ooops: a kernel module. A number written to /proc/ooops makes the kernel access memory that it must not.
 *
 * It is built without the kernel's headers: what it has to know of the running kernel's structures stands
 * in layout.h. It has no symbol versions, so the kernel notes that loading it was forced.
 */
#include "layout.h"

#define SECTION(name) __attribute__((section(name), used))

extern int kstrtoint_from_user(const char *text, unsigned long size, unsigned int base, int *value);
extern void *proc_create(const char *name, unsigned short mode, void *parent, const void *operations);

static const char license[] SECTION(".modinfo") = "license=GPL";
static const char name[] SECTION(".modinfo") = "name=ooops";

static long on_write(void *file, const char *text, unsigned long size, long *position)
{
	int what;

	(void)file;
	(void)position;
	if (kstrtoint_from_user(text, size, 10, &what) != 0)
		return -22;
	if (what == 0) /* a write near address 0 */
		*(volatile int *)8 = 1;
	else if (what == 1) /* a call through a pointer that is 0 */
		((void (*volatile)(void))0)();
	else if (what == 2) /* a read beyond the end of memory */
		(void)*(volatile int *)0xffff8880f0000000UL;
	else if (what == 3) /* a write to code, which is mapped read-only */
		*(volatile char *)(unsigned long)on_write = 0;
	return size;
}

/* The kernel's struct proc_ops, of which one member is set, and struct module. */
static struct {
	char before[OFF_proc_ops_proc_write];
	long (*write)(void *, const char *, unsigned long, long *);
	char after[SIZE_proc_ops - OFF_proc_ops_proc_write - sizeof(void *)];
} operations = { .write = on_write };

static int start(void)
{
	return proc_create("ooops", 0200, 0, &operations) ? 0 : -12;
}

struct {
	char before[OFF_module_name];
	char name[OFF_module_init - OFF_module_name];
	int (*init)(void);
	char after[SIZE_module - OFF_module_init - sizeof(void *)];
} __this_module SECTION(".gnu.linkonce.this_module") = { .name = "ooops", .init = start };
