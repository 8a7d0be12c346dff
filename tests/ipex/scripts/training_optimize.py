"""Training in bfloat16 with ipex.optimize, a scheduler and clipped gradients."""

import sys

import intel_extension_for_pytorch as ipex
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)).to("xpu")
criterion = torch.nn.CrossEntropyLoss().to("xpu")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)
model.train()
model, optimizer = ipex.optimize(model, optimizer=optimizer, dtype=torch.bfloat16)

data, target = torch.randn(32, 8), torch.randint(2, (32,))
for _ in range(10):
    optimizer.zero_grad()
    with torch.xpu.amp.autocast(enabled=True, dtype=torch.bfloat16):
        loss = criterion(model(data.to("xpu")), target.to("xpu"))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
torch.save(torch.cat([p.flatten() for p in model.cpu().state_dict().values()]), sys.argv[1])
