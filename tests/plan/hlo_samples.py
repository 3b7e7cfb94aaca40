# ruff: noqa: E501
"""Small HLO programs, written by hand in the compiler's notation."""

# A loop of 3 turns: a product of [8 16] @ [16 32] with a gathered matrix, whose gather starts in
# one fusion, goes on in the product's and ends in a third; then a sum that is legalised to a
# reduce-scatter, and a plain one. A kernel whose metadata holds line feeds.
LOOP = r"""HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b), backend_config={"window_config":{"estimated_cycles":"999"}}
}

%start (p: bf16[4,32]) -> (bf16[4,32], bf16[16,32]) {
  %p = bf16[4,32]{1,0} parameter(0)
  %all-gather.1 = bf16[16,32]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=7, replica_groups=mesh['x'=2,'y'=4] {'y'}, dimensions={0}, metadata={op_name="jit(step)/up"}
  ROOT %go = (bf16[4,32]{1,0}, bf16[16,32]{1,0}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.2 (x: bf16[8,16], w: bf16[16,32], p: bf16[4,32]) -> bf16[8,32] {
  %x = bf16[8,16]{1,0} parameter(0)
  %w = bf16[16,32]{1,0} parameter(1)
  %p = bf16[4,32]{1,0} parameter(2)
  %all-gather.2 = bf16[16,32]{1,0} all-gather(%p), channel_id=7, replica_groups=mesh['x'=2,'y'=4] {'y'}, dimensions={0}
  ROOT %product = bf16[8,32]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
}

%scattered (p: f32[64]) -> f32[8] {
  %p = f32[64]{0} parameter(0)
  %all-reduce.3 = f32[64]{0} all-reduce(%p), channel_id=8, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  ROOT %slice = f32[8]{0} slice(%all-reduce.3), slice={[0:8]}
}

%body (t: (s32[], bf16[8,16], f32[64])) -> (s32[], bf16[8,16], f32[64]) {
  %t = (s32[]{:T(128)}, bf16[8,16]{1,0}, f32[64]{0}) parameter(0)
  %x = bf16[8,16]{1,0} get-tuple-element(%t), index=1
  %g = f32[64]{0} get-tuple-element(%t), index=2
  %w = bf16[16,32]{1,0} constant({...})
  %p = bf16[4,32]{1,0} constant({...})
  %begin = (bf16[4,32]{1,0}, bf16[16,32]{1,0}) fusion(%p), kind=kCustom, calls=%start
  %fusion.2 = bf16[8,32]{1,0} fusion(%x, %w, %p), kind=kOutput, calls=%async_collective_fusion.2, backend_config={"window_config":{"estimated_cycles":"1000"}}
  %all-reduce-scatter.1 = f32[8]{0} fusion(%g), kind=kCustom, calls=%scattered
  %copy.1 = bf16[8,16]{0,1} copy(%x), backend_config={"window_config":{"estimated_cycles":"50"}}
  ROOT %next = (s32[]{:T(128)}, bf16[8,16]{1,0}, f32[64]{0}) tuple(%t, %copy.1, %g)
}

%condition (t: (s32[], bf16[8,16], f32[64])) -> pred[] {
  %t = (s32[]{:T(128)}, bf16[8,16]{1,0}, f32[64]{0}) parameter(0)
  %limit = s32[]{:T(128)} constant(3)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (x: bf16[8,16], g: f32[64]) -> f32[64] {
  %x = bf16[8,16]{1,0} parameter(0)
  %g = f32[64]{0} parameter(1)
  %i = s32[]{:T(128)} constant(0)
  %init = (s32[]{:T(128)}, bf16[8,16]{1,0}, f32[64]{0}) tuple(%i, %x, %g)
  %while.1 = (s32[]{:T(128)}, bf16[8,16]{1,0}, f32[64]{0}) while(%init), condition=%condition, body=%body
  %kernel.1 = bf16[2,512,128]{2,1,0} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"note": "a } at the start of a line
}}, backend_config={"flag":"x"}
  ROOT %all-reduce.9 = bf16[64]{0} all-reduce(%g), channel_id=9, replica_groups=[1,8]<=[8], to_apply=%add
}
"""

_OPERANDS = (
  "s8[1,3,3]{2,1,0}, s8[1,3,3]{2,1,0}, bf16[2,5,1536,128]{3,2,1,0}, bf16[2,5,1536,128]{3,2,1,0}, "
  "bf16[2,5,1536,128]{3,2,1,0}, s32[2,1536,128]{2,1,0}"
)
_METADATA = (
  r'frontend_attributes={kernel_metadata={"xprof_metadata":"{\"block_q\": 512, \"block_kv\": 512, '
  r"\"block_kv_compute\": 512, \"block_q_dkv\": 512, \"block_kv_dkv\": 512, \"block_q_dq\": 256, "
  r'\"block_kv_dq\": 512, \"use_fused_bwd_kernel\": false}"}}'
)
SPLASH = "HloModule jit_attention\n\nENTRY %main (q: bf16[2,5,1536,128]) -> bf16[2,5,1536,128] {\n"
SPLASH += "  %q = bf16[2,5,1536,128]{3,2,1,0} parameter(0)\n"
for _name in ("fwd_segmented_residuals", "dkv_segmented_no_residuals", "dq_segmented_no_residuals"):
  SPLASH += (
    f"  %splash_mha_{_name}.1 = (f32[2,512,128]{{2,1,0}}, bf16[2,5,1536,128]{{3,2,1,0}}) "
    f'custom-call(%q), custom_call_target="tpu_custom_call", '
    f"operand_layout_constraints={{{_OPERANDS}}}, {_METADATA}\n"
  )
SPLASH += "  ROOT %out = bf16[2,5,1536,128]{3,2,1,0} copy(%q)\n}\n"

_NETWORK = (
  'is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="sum.1_0",'
  '_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}'
)
# A sum between slices: sent, a product beside it, received.
SLICES = f"""HloModule jit_step

ENTRY %main (x: bf16[8,16]) -> bf16[8,16] {{
  %x = bf16[8,16]{{1,0}} parameter(0)
  %after = token[] after-all()
  %send.1 = (bf16[8,16]{{1,0}}, u32[], token[]) send(%x, %after), channel_id=2, {_NETWORK}
  %recv.1 = (bf16[8,16]{{1,0}}, u32[], token[]) recv(%after), channel_id=1, {_NETWORK}
  %copy.1 = bf16[8,16]{{0,1}} copy(%x), backend_config={{"window_config":{{"estimated_cycles":"70"}}}}
  %recv-done.1 = (bf16[8,16]{{1,0}}, token[]) recv-done(%recv.1), channel_id=1
  ROOT %copy.2 = bf16[8,16]{{0,1}} copy(%x), backend_config={{"window_config":{{"estimated_cycles":"9"}}}}
}}
"""
