/* What is compiled once: the best ISA, work shared by a team, sizes of structures. */
#include "kernels.h"

#include <stddef.h>

int64_t rk_best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("fma"))
        return 0;
    int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return wide ? 2 : 1;
#else
    return 0;
#endif
}

void rk_share(rk_job *job) {
    int64_t thread = __atomic_fetch_add(&job->threads, 1, __ATOMIC_ACQ_REL);
    char *scratch = job->scratch + thread * job->scratch_size;
    for (;;) {
        int64_t begin = __atomic_fetch_add(&job->taken, job->grain, __ATOMIC_ACQ_REL);
        if (begin >= job->items)
            return;
        int64_t end = begin + job->grain;
        job->kernel(job->arguments, begin, end < job->items ? end : job->items, scratch);
    }
}

int64_t rk_size_of(int64_t which) {
    static const size_t sizes[] = {
        sizeof(rk_shape),          sizeof(rk_lay),    sizeof(rk_forward), sizeof(rk_weight_gradient),
        sizeof(rk_input_gradient), sizeof(rk_sparse), sizeof(rk_turn),    sizeof(rk_job)};
    return which >= 0 && which < (int64_t)(sizeof sizes / sizeof sizes[0]) ? (int64_t)sizes[which] : -1;
}
