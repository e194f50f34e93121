/* synth_kernel.cu - synthetic batches, made where they are used: philox.h for each sample. */
#include "samples.cuh"

extern "C" {

__global__ void __launch_bounds__(JOB_THREADS, 4) ghm_synth_samples(const job_synth job)
{
    uint32_t step = gridDim.x * blockDim.x;
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < job.n; i += step) {
        ghm_sample sample = ghm_synth_sample(job.task, &job.mixture, job.seed, job.begin + i,
                                             job.step);
        job.pred[i] = sample.pred;
        job.target[i] = sample.target;
        if (job.weight) {
            job.weight[i] = sample.weight;
        }
    }
}

cudaError_t job_synth_start(const job_synth *job, uint32_t blocks, cudaStream_t stream)
{
    return start(ghm_synth_samples, *job, blocks, JOB_THREADS, 0, stream);
}
}
