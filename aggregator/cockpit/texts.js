/**
 * Every text of the page in English and Simplified Chinese, and the choice between them.
 * @module texts
 */

const KEPT = "millgate.language";

/** @type {Record<string, [string, string]>} */
const TEXTS = {
  skip: ["Skip to what arrived", "跳到收到的数据"],
  tagline: ["What the brain received", "大脑收到了什么"],
  title: ["Millgate: what the brain received", "Millgate：大脑收到了什么"],
  otherLanguage: ["中文", "English"],
  switchLanguage: ["切换到中文", "Switch to English"],
  retry: ["Try now", "立即重试"],
  leave: ["Forget the token", "清除令牌"],
  zone: ["Times in {zone}", "时间按 {zone} 显示"],

  live: ["Live · asked {age}", "实时 · {age}更新"],
  connecting: ["Connecting …", "正在连接……"],
  stale: ["Not live", "未更新"],
  noAnswer: [
    "No answer since {time}. What you see is from then; the page keeps asking.",
    "自 {time} 起没有应答。页面显示的是当时的数据，仍在不断询问。",
  ],
  neverAnswered: [
    "No answer since this page was opened at {time}; it keeps asking.",
    "自 {time} 打开页面起没有应答，仍在不断询问。",
  ],
  refusedAnswer: ["The aggregator says: {title}.", "汇聚端回答：{title}。"],

  doorTitle: ["Show your token", "请出示令牌"],
  doorWhy: [
    "This page shows data that factories released to this brain, so it asks for the token of the read API. It stays in this browser tab only.",
    "本页面展示工厂向本大脑放行的数据，因此需要读取接口的令牌。令牌只保存在当前标签页。",
  ],
  doorLabel: ["Token", "令牌"],
  doorOpen: ["Open", "打开"],
  doorWrong: ["This token was not accepted. Ask whoever runs the aggregator.", "令牌未被接受，请向汇聚端的管理者索取。"],
  doorUnfit: ["A token has letters and digits only.", "令牌只含字母和数字。"],

  factories: ["Factories", "工厂"],
  noFactories: ["No data: no factory has sent anything yet.", "无数据：尚无工厂发来数据。"],
  online: ["online", "在线"],
  offline: ["offline", "离线"],
  unsaid: ["has not said", "未报告"],
  silent: ["silent", "静默"],
  lastBatch: ["last batch {age}", "最近一批 {age}"],
  noBatch: ["no batch yet", "尚无批次"],
  newestSlot: ["Newest slot ends", "最新时段截至"],
  batches: ["Batches kept", "已存批次"],
  values: ["Values kept", "已存数值"],
  refused: ["Batches refused", "拒收批次"],
  agent: ["agent {id}", "代理 {id}"],

  equipment: ["Newest values", "最新数值"],
  noSeries: ["No data: no series yet. They appear as soon as the first released slot arrives.", "无数据：尚无序列。第一个放行的时段到达后即会出现。"],
  noData: ["no data", "无数据"],
  noneInView: ["no data in this period", "该时段无数据"],
  ranges: ["Period of the charts", "图表时段"],
  "range.slots": ["60 slots", "60 个时段"],
  "range.hour": ["1 h", "1 小时"],
  "range.day": ["24 h", "24 小时"],
  "range.week": ["7 d", "7 天"],
  "range.month": ["30 d", "30 天"],
  showMore: ["Show {count} more", "再显示 {count} 台"],
  cutOff: ["Only the first {count} series are shown.", "只显示前 {count} 个序列。"],
  noEquipment: ["whole site", "全厂"],
  slotAt: ["{time} · {length} slot", "{time} · 时段 {length}"],
  quality: ["quality {quality}", "质量 {quality}"],
  energy: ["Energy", "能耗"],
  energyOf: ["Energy · {medium}", "能耗 · {medium}"],
  carbon: ["Carbon", "碳排放"],
  carbonOf: ["Carbon · scope {scope}", "碳排放 · 范围{scope}"],
  activityOf: ["Activity · {medium}", "活动数据 · {medium}"],
  factor: ["factor {id} · {value} {unit}", "因子 {id} · {value} {unit}"],
  factorYear: ["data of {year}", "{year} 年数据"],
  factorGrade: ["grade {grade}", "等级 {grade}"],
  perStep: ["{name}, {unit} per {step}", "{name}，{unit}／{step}"],
  cumulated: ["Carbon cumulated, kg CO₂e", "累计碳排放，kg CO₂e"],
  stateShare: ["Machine state, share of each {step}", "设备状态，每 {step} 内占比"],
  inView: ["{sum} in view · {slots}", "合计 {sum} · {slots}"],
  slotsOf: ["{present} of {all} slots", "{present}/{all} 个时段"],
  asOf: ["at the end of {time}", "截至 {time} 时段末"],
  behind: ["ended {age}", "{age}结束"],
  share: ["{state} {percent}", "{state} {percent}"],

  sheets: ["What arrived, under which release sheet", "数据依据哪份发布目录到达"],
  promise: [
    "This is everything the factories released to this brain. What they withheld never came here: it is known only inside the factory.",
    "这就是工厂向本大脑放行的全部内容。未放行的数据从未到达此处，只有工厂内部知道。",
  ],
  noSheets: ["No data: no release sheet has arrived yet.", "无数据：尚未收到发布目录。"],
  sheetOf: ["{name}, policy version {version}", "{name}，策略第 {version} 版"],
  current: ["in force", "生效中"],
  earlier: ["earlier", "历史"],
  expired: ["expired", "已过期"],
  purpose: ["Purpose", "用途"],
  right: ["Right", "数据权属"],
  policyVersion: ["Policy version", "策略版本"],
  validUntil: ["Valid until", "有效期至"],
  arrived: ["Arrived", "到达时间"],
  fingerprint: ["Fingerprint", "指纹"],
  pointCount: ["Points released", "放行点数"],
  number: ["No.", "编号"],
  equipmentColumn: ["Equipment", "设备"],
  measurand: ["Measurand", "测量量"],
  unit: ["Unit", "单位"],
  sentAs: ["Sent as", "发送形式"],
  slot: ["Slot", "时段"],
  rounding: ["Rounded to", "取整步长"],
  retention: ["Kept for", "保存期限"],
  days: ["{count} days", "{count} 天"],
  showPoints: ["Show all {count} points", "显示全部 {count} 个点"],

  "method.location": ["location-based", "基于位置"],
  "method.market": ["market-based", "基于市场"],
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

  "medium.Electricity": ["electricity", "电"],
  "medium.NaturalGas": ["natural gas", "天然气"],
  "role.main": ["main meter", "总表"],
  "role.sub": ["sub-meter", "分表"],
  "role.pv": ["solar", "光伏"],
  "role.export": ["export", "上网"],

  "measurand.energy.active_import": ["Active energy imported", "正向有功电能"],
  "measurand.energy.active_export": ["Active energy exported", "反向有功电能"],
  "measurand.energy.reactive_import": ["Reactive energy imported", "正向无功电能"],
  "measurand.gas.volume": ["Gas volume", "燃气量"],
  "measurand.power.active": ["Active power", "有功功率"],
  "measurand.power.factor": ["Power factor", "功率因数"],
  "measurand.temperature": ["Temperature", "温度"],
  "measurand.pressure": ["Pressure", "压力"],
  "measurand.machine.state": ["Machine state", "设备状态"],
  "measurand.production.total": ["Parts made", "总产量"],
  "measurand.production.good": ["Good parts", "合格品"],
  "measurand.production.scrap": ["Scrap parts", "废品"],

  "ago.s": ["{n} s ago", "{n} 秒前"],
  "ago.min": ["{n} min ago", "{n} 分钟前"],
  "ago.h": ["{n} h ago", "{n} 小时前"],
  "ago.d": ["{n} d ago", "{n} 天前"],
  "span.s": ["{n} s", "{n} 秒"],
  "span.min": ["{n} min", "{n} 分钟"],
  "span.h": ["{n} h", "{n} 小时"],
  "span.d": ["{n} d", "{n} 天"],
};

let chosen = kept() ?? (preferred().toLowerCase().startsWith("zh") ? 1 : 0);

/** @returns {string} the first language the browser asks for */
function preferred() {
  return navigator.language ?? "en";
}

/** @returns {0|1|null} the language chosen earlier in this browser */
function kept() {
  const value = localStorage.getItem(KEPT);
  return value === "zh" ? 1 : value === "en" ? 0 : null;
}

/** @returns {"en"|"zh-CN"} the language shown */
export function language() {
  return chosen ? "zh-CN" : "en";
}

/** @returns {string} how numbers and dates are written; British, so that the day comes first */
export function locale() {
  return chosen ? "zh-CN" : "en-GB";
}

/** Shows the other language from now on, and remembers it. */
export function switchLanguage() {
  chosen = chosen ? 0 : 1;
  localStorage.setItem(KEPT, chosen ? "zh" : "en");
}

/**
 * @param {string} key
 * @param {Record<string, string|number>} [parts] fills the {names} in the text
 * @returns {string} the text in the language shown
 */
export function t(key, parts = {}) {
  const text = TEXTS[key][chosen];
  return text.replace(/\{(\w+)\}/g, (_, name) => String(parts[name]));
}

/**
 * @param {string} group such as "medium"
 * @param {string} name such as "Electricity"
 * @returns {string} its text, or the name itself where the page knows none
 */
export function term(group, name) {
  const key = `${group}.${name}`;
  return Object.hasOwn(TEXTS, key) ? t(key) : name;
}

/** Fills every element that carries data-text. */
export function fillTexts() {
  document.documentElement.lang = language();
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
}
