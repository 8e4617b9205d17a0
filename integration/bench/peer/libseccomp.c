/* The peer of `make bench`: a filter for three ABIs by libseccomp, as runc has it built. Names of allowed calls on stdin, a line
 * each; prints nanoseconds of building and of loading, and the number of instructions. */
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static long now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void need(int answer, const char *what) {
	if (answer < 0) {
		fprintf(stderr, "libseccomp: %s: %s\n", what, strerror(-answer));
		exit(1);
	}
}

int main(void) {
	char names[512][64], file[] = "/tmp/bpf.XXXXXX";
	int count = 0;
	while (count < 512 && scanf("%63s", names[count]) == 1)
		count++;

	long begun = now();
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!filter)
		return 1;
	need(seccomp_arch_add(filter, SCMP_ARCH_X86), "x86");
	need(seccomp_arch_add(filter, SCMP_ARCH_X32), "x32");
	for (int i = 0; i < count; i++) {
		int number = seccomp_syscall_resolve_name(names[i]);
		if (number == __NR_SCMP_ERROR)
			continue;
		int added = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
		/* A call that one of the ABIs does not have. */
		if (added != -EDOM && added != -EFAULT)
			need(added, names[i]);
	}
	long built = now();
	int out = mkstemp(file);
	if (out < 0)
		return 1;
	unlink(file);
	need(seccomp_export_bpf(filter, out), "export");
	off_t bytes = lseek(out, 0, SEEK_END);
	close(out);
	need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0, "no_new_privs");

	/* The call does what is left of the building, too. */
	long loading = now();
	need(seccomp_load(filter), "load");
	long loaded = now();
	printf("%ld %ld %ld\n", built - begun, loaded - loading, (long)bytes / 8);
	return 0;
}
