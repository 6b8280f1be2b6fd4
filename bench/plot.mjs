// The results as one SVG: bars for every case against the C loop, and curves over the number of connections.
import * as echarts from 'echarts';
import { ratio } from './measure.mjs';
import { peers } from './peers.mjs';

const colours = {
  diod: '#b07aa1',
  passthrough: '#4e79a7',
  mapped: '#59a14f',
  workers: '#e15759',
  floor: '#9c9c9c',
};
const barHeight = 10;
const width = 900;

const isConnections = ({ connections }) => connections !== undefined;

function bars(cases, names, height) {
  const compared = cases.filter(one => !isConnections(one) && one.result.floor);
  const others = names.filter(name => name !== 'floor' && !peers[name].measures);
  return {
    grid: { left: 230, right: 50, top: 80, height },
    xAxis: { type: 'value', name: '× C loop', min: 0, nameLocation: 'middle', nameGap: 28 },
    yAxis: { type: 'category', inverse: true, data: compared.map(({ name }) => name) },
    series: others.map(name => ({
      name: peers[name].label,
      type: 'bar',
      itemStyle: { color: colours[name] },
      data: compared.map(({ result }) =>
        result[name] ? Number(ratio(result[name], result.floor).toFixed(3)) : null,
      ),
      markLine: {
        silent: true,
        symbol: 'none',
        label: { show: false },
        lineStyle: { color: '#555' },
        data: [{ xAxis: 1 }],
      },
    })),
  };
}

function curves(cases, names, top) {
  const measured = cases.filter(isConnections);
  return {
    grid: { left: 230, right: 50, top, height: 220 },
    xAxis: {
      type: 'category',
      name: 'connections',
      nameLocation: 'middle',
      nameGap: 28,
      data: measured.map(one => String(one.connections)),
    },
    yAxis: { type: 'log', name: 'getattr per second' },
    series: names.map(name => ({
      name: peers[name].label,
      type: 'line',
      itemStyle: { color: colours[name] },
      data: measured.map(({ result }) => (result[name] ? Math.round(result[name].perSecond) : null)),
    })),
  };
}

/** Returns the text of the SVG. */
export function plot({ on, cases }) {
  const names = [...new Set(cases.flatMap(({ result }) => Object.keys(result)))];
  const barsHeight = cases.filter(one => !isConnections(one)).length * (names.length * barHeight + 8);
  const parts = [bars(cases, names, barsHeight)];
  if (cases.some(isConnections)) parts.push(curves(cases, names, barsHeight + 180));
  const height = barsHeight + (parts.length > 1 ? 460 : 140);
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width, height });
  chart.setOption({
    animation: false,
    backgroundColor: '#fff',
    title: { text: `ninepd beside its peers, ${on.date}, ${on.commit}`, left: 'center' },
    legend: { top: 42, data: [...new Set(parts.flatMap(({ series }) => series.map(({ name }) => name)))] },
    grid: parts.map(({ grid }) => grid),
    xAxis: parts.map(({ xAxis }, gridIndex) => ({ ...xAxis, gridIndex })),
    yAxis: parts.map(({ yAxis }, gridIndex) => ({ ...yAxis, gridIndex })),
    series: parts.flatMap(({ series }, at) =>
      series.map(one => ({ ...one, xAxisIndex: at, yAxisIndex: at })),
    ),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg}\n`;
}
