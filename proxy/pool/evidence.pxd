cimport cython

@cython.locals(short=double, count=double, faded=double, all_short=double, all_count=double, all_faded=double, shared=double, ours=double)
cpdef double of_run(double evidence, long long times, own, every, double spread) except? -1
