/**
 * Names of things that series speak of: English, Simplified Chinese. Those of measurands and media
 * come from the vocabulary that the aggregator itself uses.
 * @module words_terms
 */

/** @type {Record<string, [string, string]>} */
export const TERMS = {
  "method.location": ["location-based", "基于位置"],
  "method.market": ["market-based", "基于市场"],
  "method.direct": ["direct", "直接排放"],
  "method.export": ["exported", "上网电力"],
  "quality.ESTIMATED": ["estimated", "估算"],
  "quality.PARTIAL": ["partial", "不完整"],
  "quality.BAD": ["bad", "不可用"],

  "purpose.industrial-brain": ["industrial brain", "产业大脑"],
  "purpose.future-factory": ["future factory", "未来工厂"],
  "purpose.carbon-emission": ["carbon emission", "碳排放"],
  "purpose.energy-statistics": ["energy statistics", "能源统计"],
  "part.end": ["state at the slot's end", "时段末状态"],

  "aggregate.last": ["last value", "末值"],
  "aggregate.delta": ["difference", "差值"],
  "aggregate.state": ["time in state", "状态时长"],

  "state.0": ["Unknown", "未知"],
  "state.1": ["Running", "运行"],
  "state.2": ["Setup", "调机"],
  "state.3": ["Idle", "空闲"],
  "state.4": ["Starved or blocked", "缺料/阻塞"],
  "state.5": ["Held", "保持"],
  "state.6": ["Fault", "故障"],
  "state.7": ["Planned down", "计划停机"],
  "state.8": ["Off", "关机"],

  "field.ff_production.qty_total": ["parts made", "总产量"],
  "field.ff_production.qty_good": ["good parts", "合格品"],
  "field.ff_production.qty_scrap": ["scrap", "废品"],
  "field.ff_production.qty_rework": ["rework", "返工"],
  "field.ff_production.cycles": ["cycles", "循环数"],
  "field.ff_quality.fpy": ["first pass yield", "一次合格率"],
  "field.ff_quality.scrap_ratio": ["scrap ratio", "废品率"],
  "field.ff_connectivity.devices_online": ["equipment heard of", "有数据的设备"],
  "field.ff_connectivity.devices_total": ["equipment that releases", "放行数据的设备"],
  "field.ff_connectivity.digital_rate": ["of all digital devices", "占数字化设备"],
  "field.ce_balance.main": ["main meters", "总表"],
  "field.ce_balance.sub_sum": ["sum of sub-meters", "分表之和"],
  "field.ce_balance.residual_ratio": ["in no sub-meter", "分表未计入占比"],
  "field.ce_quality.coverage": ["carbon data received", "碳数据到达率"],
  "field.ce_quality.estimated_share": ["estimated share", "估算占比"],
  "field.ce_intensity.kgco2e_per_unit": ["carbon intensity", "碳排放强度"],
  "field.ce_intensity.L": ["carbon per value added, L", "单位增加值碳排放 L"],
  "field.ce_intensity.K": ["K, against the industry", "K（与同行业之比）"],
  "field.ce_intensity.grade": ["carbon grade, 1 best of 5", "碳效等级（1 最优，共 5 级）"],

  "role.main": ["main meter", "总表"],
  "role.sub": ["sub-meter", "分表"],
  "role.pv": ["solar", "光伏"],
  "role.export": ["export", "上网"],
  "role.self_use": ["own use of solar", "光伏自用"],
  "role.load": ["load", "总负荷"],
};
