"""What CUDA does differently from the CPU whose fake tensors stand for it: which kernels run, what they save and what scratch they need.

Two places, by where torch decides: `functions` are calls above autograd that CUDA answers with other operators; `kernels` are operators
whose CUDA kernel allocates more than its result.
"""

from profiler.simulate.cuda import attention_kernels as attention_kernels
from profiler.simulate.cuda import creation as creation
from profiler.simulate.cuda import dropout as dropout
from profiler.simulate.cuda import embedding as embedding
from profiler.simulate.cuda import fused_loss as fused_loss
from profiler.simulate.cuda import group_norm as group_norm
from profiler.simulate.cuda import norms as norms
from profiler.simulate.cuda import sdpa as sdpa
from profiler.simulate.cuda import softmax as softmax
from profiler.simulate.cuda import workspaces as workspaces
