// Samples of `npm run soak` as an SVG: a curve over time for each quantity.
import * as echarts from 'echarts';

const width = 900;
const height = 150;
const gap = 70;

const charts = [
  { name: 'MiB', lines: { 'resident memory': 'rssMiB', 'V8 heap after a collection': 'heapMiB' } },
  { name: 'count', lines: { descriptors: 'descriptors', threads: 'threads' } },
  { name: 'ms', lines: { 'latency p50': 'p50Ms', 'latency p99': 'p99Ms' }, type: 'log' },
  { name: 'of a core', lines: { 'CPU of the server': 'cpu' } },
];

/** Returns the text of the SVG. */
export function plotSoak({ on, samples }) {
  const series = charts.flatMap(({ lines }, at) =>
    Object.entries(lines).map(([name, field]) => ({
      name,
      type: 'line',
      showSymbol: false,
      xAxisIndex: at,
      yAxisIndex: at,
      lineStyle: { width: 1.2 },
      data: samples.map(sample => [sample.seconds / 60, sample[field]]),
    })),
  );
  const chart = echarts.init(null, null, {
    renderer: 'svg',
    ssr: true,
    width,
    height: 90 + charts.length * (height + gap),
  });
  chart.setOption({
    animation: false,
    backgroundColor: '#fff',
    title: { text: `${on.minutes} minutes of soak, ${on.date}`, left: 'center' },
    legend: { top: 30 },
    grid: charts.map((_, at) => ({ left: 70, right: 40, top: 90 + at * (height + gap), height })),
    xAxis: charts.map((_, gridIndex) => ({ gridIndex, type: 'value', name: 'min', max: 'dataMax' })),
    yAxis: charts.map(({ name, type = 'value' }, gridIndex) => ({ gridIndex, name, type })),
    series,
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg}\n`;
}
